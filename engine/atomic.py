"""Files that are either complete or not there: results, scores and checkpoints are written through this."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from errors import UserError

__all__ = ["WriteError", "atomic_write", "make_folder"]


class WriteError(UserError, OSError):
    """A file that could not be written; the message is one line that begins with its path."""


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb") -> Iterator[IO[Any]]:
    """An open file that takes the place of `path` once the block ends without an exception.

    The bytes go to a hidden `.part` file in the same folder, are synced to the disk, and are renamed with
    `os.replace`: a reader sees the old content or all of the new, even if the machine stops in between. After any
    exception the `.part` file is gone and `path` is as it was. A symbolic link stays, what it points to is replaced.

    Args:
        path: file to write, in a folder that exists.
        mode: "wb", or "w" for UTF-8 text without translation of line ends.

    Yields:
        The open file.

    Raises:
        WriteError: if the system refuses (no space, no permission, no folder), or `path` exists and is not a
            regular file. An exception of the block that comes of such a refusal arrives as a WriteError too, as
            libraries like torch.save replace it by one of their own; any other passes unchanged.
        ValueError: if `mode` is another one.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f'mode is {mode!r}; an atomic write replaces the whole file: use "wb" or "w"')
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    encoding, newline = (None, None) if mode == "wb" else ("utf-8", "")
    try:
        if target.exists() and not target.is_file():
            raise WriteError(f"{path}: cannot write, it is not a regular file")
        with open(part, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except Exception as error:
        refusal = system_refusal(error, files=(None, str(part), str(target)))
        if refusal is None:
            raise
        raise WriteError(f"{path}: cannot write, {refusal.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, as far as they are not there.

    Raises:
        WriteError: if the system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot make the folder, {error.strerror}") from error


def system_refusal(error: BaseException | None, files: tuple[str | None, ...]) -> OSError | None:
    """The error of the operating system about `files` that `error` is or came of; about an open file it names None."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror and error.filename in files:
            return error
        error = error.__cause__ or error.__context__
    return None
