"""One process for each run folder, and nothing half-written in it."""

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["ClaimError", "claimed"]

LOCK = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)
HALF_WRITTEN = (".*.part", "*/epoch-*/.*.part")  # where trainings write; tests of the run have folders of their own
_HERE: set[Path] = set()  # claimed by this process, which locks of files do not keep from itself


class ClaimError(UserError, OSError):
    """A run that another process works on."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Nobody else works in a run folder meanwhile, on this machine or on one that shares its disk.

    What a killed process left half-written there (`engine/atomic.py`) is removed. The claim ends with the process,
    however that ends; processes that it started do not share it.

    Raises:
        ClaimError: if another process has claimed it, or this one has.
    """
    real = folder.resolve()
    if real in _HERE:
        raise ClaimError(f"this process is at work in {folder} already")
    file = None if fcntl is None else _locked(folder / LOCK)
    _HERE.add(real)
    try:
        for part in (part for pattern in HALF_WRITTEN for part in folder.glob(pattern)):
            with suppress(OSError):
                part.unlink()
        yield
    finally:
        _HERE.remove(real)
        if file is not None:
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(file)


def _locked(path: Path) -> int | None:
    """The locked file, open; None where the file system knows no locks."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ClaimError(f"{path}: cannot write, {error.strerror}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in TAKEN:
                raise ClaimError(f"another process is at work in {path.parent}: wait for it, or end it") from error
            warnings.warn(f"{path.parent} cannot be locked, {error.strerror}: do not resume it twice", stacklevel=3)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                return file
        os.close(file)  # somebody else has just removed it at the end of their work
