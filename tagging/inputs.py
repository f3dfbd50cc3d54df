"""Pictures named on a command line: files, folders, patterns, lists of paths, references such as `shapes:test/17`."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError, MissingFileError
from datasets.worlds import is_reference, world_of

__all__ = ["Listed", "files_of", "find_pictures", "require_readable_name"]

LIST = "-"  # stands for paths on stdin


class Listed(NamedTuple):
    """A picture that was asked for."""

    picture: str  # its path, or a reference
    name: str  # what files about it are called by, with / between folders


def find_pictures(arguments: Sequence[str], lines: Iterable[str] = (), *, without: str | None = None) -> list[Listed]:
    """The pictures, each once, in the order of the arguments; those of a folder or a pattern in ASCII order.

    Folders are searched at any depth for files with the suffix of a picture; hidden files and folders are left out, and
    links to folders are not followed. A file that is named by itself may have any suffix. Nothing is opened.

    The name of a picture is its path: below the folder if that is the only argument, otherwise as it was given.

    Args:
        arguments: paths of files and folders, patterns such as "a/*.jpg" or "a/**/*.jpg", references, and "-" for what
            `lines` name.
        lines: paths or references, one each; files that are not there are found out when they are read.
        without: a folder whose pictures are left out.

    Raises:
        MissingFileError: naming an argument that stands for nothing, or if there is no picture at all.
    """
    chosen: dict[str, None] = {}
    for argument in arguments:
        for picture in _of_lines(lines) if argument == LIST else _of_argument(argument):
            if without is None or not _is_below(picture, without):
                chosen[picture] = None
    if not chosen:
        where = f" in {', '.join(arguments)}" if arguments else ""
        raise MissingFileError(f"no pictures{where}: name files, folders, patterns in quotes, or - for a list of paths")
    folder = Path(arguments[0]) if len(arguments) == 1 and os.path.isdir(arguments[0]) else None
    return [Listed(picture, _name(picture, folder)) for picture in chosen]


def files_of(pictures: Iterable[Listed], folder: Path, suffix: str) -> dict[str, Path]:
    """A file, or folder, of each picture: of its name below `folder`, with another suffix.

    Args:
        pictures: with different paths.
        folder: of all.
        suffix: such as ".txt"; "" leaves the suffix of the picture.

    Raises:
        DataError: naming two pictures that would have the same.
    """
    files: dict[str, Path] = {}
    owners: dict[Path, str] = {}
    for picture, name in pictures:
        path = folder / (PurePosixPath(name).with_suffix(suffix) if suffix else name)
        if (other := owners.setdefault(path, picture)) != picture:
            raise DataError(f"{other} and {picture} would both be written to {path}: rename one, or write .jsonl")
        files[picture] = path
    return files


def require_readable_name(picture: str) -> None:
    """Passes references, and paths of files that lists of results can name.

    Raises:
        DataError: if the path has a line break or bytes that are no UTF-8, or names no file.
    """
    if is_reference(picture):
        return
    if any("\ud800" <= character <= "\udfff" for character in picture):
        raise DataError(f"{picture!r}: the name is not UTF-8: rename the file")
    if "\n" in picture or "\r" in picture:
        raise DataError(f"{picture!r}: the name has a line break: rename the file")
    if not os.path.isfile(picture):
        raise MissingFileError(f"no file {picture}")


def _of_argument(argument: str) -> Iterator[str]:
    if is_reference(argument):
        yield _reference(argument)
    elif os.path.isfile(argument):
        yield str(Path(argument))
    elif os.path.isdir(argument):
        yield from _of_folder(argument)
    elif glob.has_magic(argument):
        for match in sorted(glob.glob(argument, recursive=True)):
            if os.path.isdir(match):
                yield from _of_folder(match)
            elif match.lower().endswith(IMAGE_SUFFIXES):
                yield str(Path(match))
    else:
        raise MissingFileError(f"no file or folder {argument!r}: pictures are files, folders or patterns in quotes")


def _of_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        path = line.rstrip("\r\n")
        if os.path.isdir(path):
            yield from _of_folder(path)
        elif path.strip():
            yield _reference(path) if is_reference(path) else str(Path(path))


def _reference(text: str) -> str:
    if re.fullmatch(r"[a-z]+:[a-z_]+/[0-9]+", text) is None:
        raise DataError(f"{text!r} is no scene of the embedded world, such as '{world_of(text).name}:test/17'")
    return text


def _of_folder(folder: str) -> Iterator[str]:
    below = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in names if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)]
        below += [Path(parent, name).as_posix() for name in shown]
    yield from (str(Path(path)) for path in sorted(below))


def _name(picture: str, folder: Path | None) -> str:
    if is_reference(picture):
        return picture.partition(":")[2]
    path = Path(picture) if folder is None else Path(picture).relative_to(folder)
    return "/".join(part for part in path.parts if part not in ("..", path.anchor))


def _is_below(picture: str, folder: str) -> bool:
    return Path(os.path.abspath(picture)).is_relative_to(os.path.abspath(folder))
