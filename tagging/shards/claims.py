"""Who is at work on which shard: locks that end with their process, on one machine or on many that share a disk.

All are locks of single bytes of one empty file; a byte is chosen by the name, so processes need not list the same
shards in the same order.
"""

import errno
import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.atomic import WriteError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Claims"]

FILE = ".claims"
TAKEN = (errno.EACCES, errno.EAGAIN)


class Claims:
    """The claims of a folder; one object for each process, which does not keep from itself what it has claimed.

    Args:
        folder: that is there.

    Raises:
        WriteError: if the system refuses to make the file.
    """

    def __init__(self, folder: Path) -> None:
        self._path, self._locks = folder / FILE, fcntl is not None
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError(f"{self._path}: cannot write, {error.strerror}") from error

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Whether nobody else is at work on this meanwhile; True for all where the file system knows no locks."""
        place = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:7])
        mine = self._lock(place)
        try:
            yield mine
        finally:
            if mine and self._locks:
                with suppress(OSError):
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def close(self, *, remove: bool) -> None:
        """Ends all claims; `remove` takes the file away too, as nobody needs it once all shards are done."""
        os.close(self._file)
        if remove:
            self._path.unlink(missing_ok=True)

    def _lock(self, place: int) -> bool:
        if not self._locks:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in TAKEN:
                return False
            self._locks = False
            warnings.warn(
                f"{self._path} cannot be locked, {error.strerror}: several processes may tag the same shards, which "
                "costs time and nothing else", stacklevel=2,
            )  # fmt: skip
        return True
