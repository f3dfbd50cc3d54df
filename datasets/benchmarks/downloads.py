"""The files of an unpacked download: found by candidate names, remembered with their checksums."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from datasets.formats import release
from datasets.formats.text import parse_json, read_text
from datasets.records import MissingFileError, Records
from files import open_regular

__all__ = ["Downloads", "Progress", "plain"]

Progress = Callable[[Iterable[Any], str], Iterable[Any]]  # of what is gone through and a description, as tqdm

RELEASED_FOLDERS = ("", "annotations", "json")  # of the download, where the authors' files may lie


class Downloads:
    """The files below a folder.

    Args:
        root: the folder that the downloads were unpacked in.
        released: a folder of the authors' annotation files; None: they are looked for in `root`, in its
            `annotations` and in its `json`.

    Raises:
        MissingFileError: if a folder is not there.
    """

    def __init__(self, root: Path, released: Path | None = None) -> None:
        for folder in (root, released):
            if folder is not None and not folder.is_dir():
                raise MissingFileError(f"there is no folder {str(folder)!r}")
        self.root = root
        self.released_folders = [released] if released else [root / folder for folder in RELEASED_FOLDERS]
        self.used: dict[str, Path] = {}  # name in `checksums` -> file

    def find(self, *candidates: str) -> Path | None:
        """The first of these files or folders, relative to the root, that exists, or None."""
        for candidate in candidates:
            path = self.root / candidate
            if path.exists():
                if path.is_file():
                    self.used[candidate] = path
                return path
        return None

    def need(self, what: str, *candidates: str) -> Path:
        """As `find`.

        Raises:
            MissingFileError: saying `what` is missing and where it was looked for, if there is none.
        """
        path = self.find(*candidates)
        if path is None:
            places = " or ".join(candidates)
            raise MissingFileError(f"{what} is missing: no {places} below {self.root}; docs/data.md has the tree")
        return path

    def released(self, *names: str) -> Records | None:
        """The authors' list of the first of these names that exists, or None.

        A file with an origin in it is one of our own lists under the same name, and passed over.

        Raises:
            DataError: if a file of that name is not in their format.
        """
        for path in (folder / name for folder in self.released_folders for name in names):
            if path.is_file() and not (records := release.records_of(parse_json(read_text(path), path), path)).origin:
                self.used[path.name if path.parent == self.root else f"{path.parent.name}/{path.name}"] = path
                return records
        return None

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file that was handed out, by its name below the root."""
        return {name: _sha256(path) for name, path in sorted(self.used.items())}


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(iterable: Iterable[Any], _description: str) -> Iterable[Any]:
    """The iterable itself: no progress is shown."""
    return iterable
