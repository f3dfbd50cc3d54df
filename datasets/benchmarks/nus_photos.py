"""Photos of NUS-WIDE by name.

The same photo of Flickr is `actor/0001_2124494179.jpg` in the official lists, `actor_0001_2124494179.jpg` in later
ones, and `80002_2124494179_0f1e2d3c4b_m.jpg` where it was downloaded again (ROLE); the photo id is in each.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.benchmarks.downloads import Progress

__all__ = ["PhotoIndex", "photos_on_disk", "scan"]

AGAIN = re.compile(r"\d+_(\d+)_[0-9a-f]+(?:_[a-z])?")
OFFICIAL = re.compile(r"(?:(.+)_)?(\d+)_(\d+)")


class Photo(NamedTuple):
    """What a name says of a photo; in the official names, `number` is that within the folder."""

    photo_id: str
    folder: str = ""
    number: str = ""


def _photo(path: str) -> Photo:
    parent, _, name = path.replace("\\", "/").rpartition("/")
    stem = name.rpartition(".")[0] or name
    if match := AGAIN.fullmatch(stem):
        return Photo(match[1])
    folder = parent.rpartition("/")[2]
    if match := OFFICIAL.fullmatch(stem):
        return Photo(match[3], match[1] or folder, match[2])
    return Photo(stem, folder)


class PhotoIndex:
    """Finds official images by any name of the photo.

    Args:
        images: official paths, as `actor/0001_2124494179.jpg`.
    """

    def __init__(self, images: Sequence[str]) -> None:
        self.images = images
        self.rows: dict[str, list[int]] = {}
        for row, image in enumerate(images):
            self.rows.setdefault(_photo(image).photo_id, []).append(row)

    @property
    def shared(self) -> int:
        """The number of photo ids that more than one image has."""
        return sum(len(rows) > 1 for rows in self.rows.values())

    def find(self, path: str) -> int | None:
        """The row of the image with the photo id, or None.

        Of several, the one with the folder and number of the path; else with its number; else the first.
        """
        rows = self.rows.get(_photo(path).photo_id, [])
        return max(rows, key=lambda row: self.agreement(path, row), default=None)

    def agreement(self, path: str, row: int) -> tuple[bool, bool]:
        """Whether the path has folder and number of the image, and whether it has its number; the higher the better."""
        photo, official = _photo(path), _photo(self.images[row])
        return photo == official, photo.number == official.number


def photos_on_disk(index: PhotoIndex, files: Sequence[str]) -> Mapping[int, str]:
    """From the row of an image to its file; a file belongs to one image only."""
    by_row: dict[int, str] = {}
    for file in files:
        row = index.find(file)
        if row is None:
            continue
        if row not in by_row or index.agreement(file, row) > index.agreement(by_row[row], row):
            by_row[row] = file
    return by_row


def scan(root: Path, folder: str, progress: Progress) -> list[str]:
    """The files in a folder below the root and in its folders, as paths relative to the root, in ASCII order."""
    with os.scandir(root / folder) as entries:
        first = list(entries)
    files = [f"{folder}/{entry.name}" for entry in first if entry.is_file()]
    for entry in progress([entry for entry in first if entry.is_dir()], f"folders in {folder}"):
        files.extend(f"{folder}/{entry.name}/{name}" for name in os.listdir(entry.path))
    return sorted(files)
