"""Images that were decoded and resized beforehand, mapped into memory: what `tools/pack_images.py` writes.

A pack changes no result: an image comes out of it to the bit as it would come of its file. It is a folder: `pack.json`
says how its images were made, `part-00000.pixels` holds some of them, (I, 3, H, W) uint8 and nothing else, and
`part-00000.json` says which. A part counts once the latter is there.
"""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from datasets.images import locate
from datasets.records import DataError, MissingFileError
from datasets.worlds import is_reference
from files import read_text

__all__ = [
    "FORMAT", "MANIFEST", "PARTS", "PIXELS", "WAY_OUT", "Entry", "Pack", "PackError", "Packed", "Part", "checksum",
    "file_bytes", "preparation",
]  # fmt: skip

MANIFEST, PARTS, PIXELS = "pack.json", "part-*.json", ".pixels"
FORMAT = {"format": "image pack", "version": 1}
WAY_OUT = "remove the folder and run tools/pack_images.py again"


class PackError(DataError):
    """A pack that is not there, broken, or of other images."""


class Packed(NamedTuple):
    """An image of a pack."""

    image: Tensor  # as the data set wants it
    size: tuple[int, int]  # width and height of its file
    whole: bool  # whether the file was all there


class Entry(NamedTuple):
    """What a pack knows of an image."""

    file_bytes: int
    width: int  # of the file
    height: int
    whole: bool
    checksum: int  # of the pixels


class Part(NamedTuple):
    """Some images of a pack."""

    pixels: Path
    shape: tuple[int, ...]  # (I, 3, H, W)
    images: dict[str, Entry]  # I, by the names that lists have for them


class Pack:
    """The images of a folder.

    Args:
        folder: of the pack.
        parts: all of it.
        finish: from (3, H, W) uint8 to what a data set gives.

    Attributes:
        known: the images by their names.
    """

    def __init__(self, folder: Path, parts: Sequence[Part], finish: Callable[[Tensor], Tensor]) -> None:
        self.folder, self.parts, self.finish = folder, parts, finish
        self.known = {name: entry for part in parts for name, entry in part.images.items()}
        self._places = {name: (k, row) for k, part in enumerate(parts) for row, name in enumerate(part.images)}
        self._mapped: dict[int, np.ndarray] = {}

    @classmethod
    def open(cls, folder: str | Path, preparation: str, finish: Callable[[Tensor], Tensor]) -> Self:
        """The pack in a folder.

        Args:
            folder: where it is.
            preparation: of its images, as `preparation` gives it.
            finish: what is left to do.

        Raises:
            PackError: if there is none, it is broken, or its images were made otherwise.
        """
        folder = Path(folder)
        _require_made(folder, preparation)
        return cls(folder, [_part(path) for path in sorted(folder.glob(PARTS))], finish)

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, of which every process makes its own."""
        return {**self.__dict__, "_mapped": {}}

    def find(self, name: str, *, read_truncated: bool, most_pixels: int) -> Packed | None:
        """An image; None if it is not here, or its file would be refused.

        Args:
            name: as it stands in the list.
            read_truncated: whether files that are cut short are read as far as they go.
            most_pixels: of an image file.

        Raises:
            PackError: if the pixels are not those that were written.
        """
        entry = self.known.get(name)
        if entry is None or entry.width * entry.height > most_pixels or not (entry.whole or read_truncated):
            return None
        number, row = self._places[name]
        if number not in self._mapped:
            part = self.parts[number]
            self._mapped[number] = np.memmap(part.pixels, np.uint8, "r", shape=part.shape)
        pixels = np.array(self._mapped[number][row])
        if checksum(pixels) != entry.checksum:
            raise PackError(f"{self.folder} is damaged, the pixels of {name!r} have changed: {WAY_OUT}")
        return Packed(self.finish(torch.from_numpy(pixels)), (entry.width, entry.height), entry.whole)

    def require_current(self, names: Iterable[str], root: str) -> None:
        """Looks whether files are those that were packed; they may be gone.

        Args:
            names: as they stand in a list.
            root: the folder of the images.

        Raises:
            PackError: naming the first that has another size now.
        """
        for name in names:
            if name in self.known and file_bytes(name, root) not in (None, self.known[name].file_bytes):
                raise PackError(f"{name!r} is another file than was packed in {self.folder}: {WAY_OUT}")

    def missing(self, names: Sequence[str]) -> list[str]:
        """Those of a list's images that are not here.

        Raises:
            PackError: if none of them is here.
        """
        missing = [name for name in names if name not in self.known]
        if names and len(missing) == len(names):
            raise PackError(
                f"{self.folder} has none of the {len(names):,} images, such as {names[0]!r}: pack this list with "
                "tools/pack_images.py, or leave DATASETS.PACK empty"
            )
        return missing


def checksum(pixels: np.ndarray) -> int:
    """Of an image (3, H, W) uint8, contiguous."""
    return zlib.crc32(pixels.data)


def file_bytes(name: str, root: str) -> int | None:
    """The size of an image's file; 0 for a scene of an embedded world, None where there is no file."""
    if is_reference(name):
        return 0
    try:
        return os.path.getsize(locate(name, root))
    except MissingFileError:
        return None


def preparation(how: str, *, rotate: bool) -> str:
    """How images are made, in words.

    Args:
        how: `Prepared.how`.
        rotate: whether EXIF orientation is applied.
    """
    return f"{how}, turned upright" if rotate else how


def _require_made(folder: Path, preparation: str) -> None:
    """Refuses a folder without a pack, or with images that were made otherwise."""
    if not (folder / MANIFEST).is_file():
        raise PackError(
            f"{folder} holds no packed images: make them with tools/pack_images.py, or leave DATASETS.PACK empty"
        )
    try:
        content = json.loads(read_text(folder / MANIFEST))
        version, made = {key: content[key] for key in FORMAT}, content["preparation"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PackError(f"{folder / MANIFEST} is broken: {WAY_OUT}") from error
    if version != FORMAT:
        raise PackError(f"{folder} is no pack of version {FORMAT['version']}: {WAY_OUT}")
    if made != preparation:
        raise PackError(f"{folder} has images of {made}, and {preparation} are needed: pack into another folder")


def _part(path: Path) -> Part:
    """The part that a file describes."""
    pixels = path.with_suffix(PIXELS)
    try:
        content = json.loads(read_text(path))
        images = {
            str(name): Entry(int(size), int(width), int(height), bool(whole), int(checksum))
            for name, size, width, height, whole, checksum in content["images"]
        }
        height, width = map(int, content["size"])
        part = Part(pixels, (len(content["images"]), 3, height, width), images)
        if math.prod(part.shape) != pixels.stat().st_size or len(images) != part.shape[0] or min(part.shape) < 1:
            raise ValueError("pixels are missing, or an image has two places")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PackError(f"{path} is broken: {WAY_OUT}") from error
    return part
