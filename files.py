"""Reading files that users name: regular ones, since a pipe may never end and a device may fill the memory.

And what decides whether a file can be read or written at all: checksums of archives, texts that no encoding has.
And where files lie that can be made anew.
"""

import errno
import os
import stat
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "damaged_part", "is_writable", "open_regular", "read_bytes", "read_text", "written_out"]


def open_regular(path: str | os.PathLike[str], mode: str = "rb", **how: Any) -> Any:
    """As `open` for reading, of regular files alone.

    Args:
        path: of the file; symbolic links are followed.
        mode: "rb" or "r".
        how: encoding and newline of text.

    Raises:
        OSError: with a `strerror`, whatever keeps the file from being opened.
    """
    try:
        return open(path, mode, opener=_regular, **how)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, f"no path: {error}", str(path)) from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file; raises OSError as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """The text of a regular file; raises OSError as `open_regular`, and UnicodeDecodeError."""
    with open_regular(path, "r", encoding=encoding) as file:
        return file.read()


def damaged_part(path: str | os.PathLike[str]) -> str | None:
    """The first part of a zip archive with a wrong checksum, which torch.load leaves out; None if all are right.

    Raises:
        zipfile.BadZipFile: if it is no zip archive.
    """
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def is_writable(text: str) -> bool:
    """Whether a text can stand in a file: without halves of characters (lone surrogates), as JSON and YAML may give."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def written_out(text: str) -> str:
    """The text with halves of characters written out, which names of files that are no UTF-8 hold for their bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def cache_folder() -> Path:
    """The folder of what can be made anew, `ram` below XDG_CACHE_HOME or ~/.cache; raises OSError without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ram"
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "there is no ~/.cache: set XDG_CACHE_HOME") from error


def _regular(path: str, flags: int) -> int:
    # Without waiting for somebody who writes into a pipe.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # of folders, `open` itself complains
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(Path(path)))
    return descriptor
