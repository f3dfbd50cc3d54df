"""From a path in an annotation file to pixels.

Annotation files hold paths of the machine they were made on (`/mnt/.../trainval2014/COCO_val2014_0.jpg`);
`locate` finds the same image in the user's own folders.
"""

import os
import posixpath
import threading
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from datasets.records import DataError, MissingFileError
from datasets.worlds import is_reference, scene_of

__all__ = [
    "FORMATS", "IMAGE_SUFFIXES", "MOST_PIXELS", "decode_image", "locate", "open_image", "open_truncated", "present",
    "require_images",
]  # fmt: skip

PILLOW = threading.Lock()  # whether Pillow takes truncated files is a global of its module
MOST_PIXELS = 178_956_970  # more than these Pillow holds for an attack
# What is opened; others, such as EPS, would have Pillow start programs or seldom used decoders.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def locate(path: str, root: str) -> Path:
    r"""The file that `path` names, the first of these that exists.

    1. the path as it is, if absolute, or relative to `root`;
    2. ever shorter ends of it below `root`: `a/b/c.jpg`, `b/c.jpg`;
    3. its file name in `root` or in the only folder of `root` that has it (`train2014/`, `val2014/`).

    Where a folder that the path names is found, the image has to be in it: another one of the same name elsewhere is
    another image.

    The folders that exist are looked up once per folder of the annotation file. Backslashes separate folders, a drive
    (`C:\data\a.jpg`) counts as a folder. What is not there is also looked for in the other normal form of Unicode: a
    "ü" is one character in most files, and two on disks that were written by macOS.

    Raises:
        MissingFileError: if there is none.
        DataError: if only the name is known and several folders have it.
    """
    return Path(_found(path, root))


def _found(path: str, root: str) -> str:
    wanted = path.replace("\\", "/").rstrip("/")
    parent, _, name = wanted.rpartition("/")
    file = _first(parent, name, root)
    if file is None and not wanted.isascii():
        file = next(filter(None, (_first(*other, root) for other in _spellings(parent, name))), None)
    if file is None:
        raise MissingFileError(f"no image {path!r} below {root!r}: set DATASETS.IMAGE_DIR to the folder of the images")
    return file


def _first(parent: str, name: str, root: str) -> str | None:
    named, others = _folders(parent, root)
    for folder in named:
        if os.path.isfile(candidate := f"{folder}/{name}"):
            return candidate
    candidates = [path for folder in others if os.path.isfile(path := f"{folder}/{name}")]
    if len(candidates) > 1:
        wanted = posixpath.join(parent, name)
        raise DataError(
            f"{candidates[0]} and {candidates[1]} have the name of {wanted!r}: list images with their folder"
        )
    return candidates[0] if candidates else None


def _spellings(parent: str, name: str) -> list[tuple[str, str]]:
    """Folders and file name, each in either normal form of Unicode."""
    parents, names = ([unicodedata.normalize(form, text) for form in ("NFC", "NFD")] for text in (parent, name))
    return [(folder, file) for folder in parents for file in names]


@lru_cache(maxsize=65_536)
def _folders(parent: str, root: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Existing folders where a file of the folder `parent` has to be; or, if there are none, where it may be."""
    parts = PurePosixPath(parent).parts
    ends = (os.path.join(root, *parts[k:]) for k in range(len(parts)) if parts[k:] != ("/",))
    if named := tuple(dict.fromkeys(end for end in ends if os.path.isdir(end))):
        return named, ()
    return (root,), _subfolders(root)


def require_images(images: Sequence[str], root: str) -> None:
    """Looks for every image, without opening any.

    Raises:
        DataError: saying how many are missing and naming the first.
    """
    if missing := [error for error in _errors(images, root) if error is not None]:
        many = f"{len(missing):,} of {len(images):,} images are missing; tools/check_data.py lists them; the first: "
        raise DataError(f"{many if len(missing) > 1 else ''}{missing[0]}")


def present(images: Sequence[str], root: str) -> list[int]:
    """The positions of the images that are there; one that several folders have is there."""
    errors = _errors(images, root)
    return [index for index, error in enumerate(errors) if not isinstance(error, MissingFileError)]


def _errors(images: Sequence[str], root: str) -> Iterator[DataError | None]:
    """What keeps each image from being found, or None."""
    for image in images:
        try:
            if not is_reference(image):
                _found(image, root)
        except DataError as error:
            yield error
        else:
            yield None


@lru_cache(maxsize=64)
def _subfolders(root: str) -> tuple[str, ...]:
    if not os.path.isdir(root):
        return ()
    with os.scandir(root) as entries:
        return tuple(sorted(entry.path for entry in entries if os.path.isdir(entry.path)))


def open_image(
    reference: str, root: str, *, rotate: bool = False, most_pixels: int = MOST_PIXELS
) -> Image.Image:  # fmt: skip
    """The image as RGB, 8 bits, of a file in one of the `FORMATS`.

    An alpha channel is dropped and EXIF orientation is not applied, as in the release, whose numbers are
    from COCO and NUS files read that way. Greyscale of 16 bits is scaled to 8 (Pillow would clip it to white). An
    animation is its first frame.

    Args:
        reference: a path, see `locate`, or a scene of an embedded world such as `shapes:test/17`.
        root: the folder of the images.
        rotate: whether EXIF orientation is applied, as viewers do; for photographs straight from a phone.
        most_pixels: that it may have, at most `MOST_PIXELS`; its head says how many before any is decoded.

    Raises:
        DataError: naming the file, if it is missing, truncated, no image, or has too many pixels.
    """
    if is_reference(reference):
        return scene_of(reference).image
    path = locate(reference, root)
    return decode_image(path, str(path), rotate=rotate, most_pixels=most_pixels)


def decode_image(
    file: Path | IO[bytes], name: str, *, rotate: bool = False, most_pixels: int = MOST_PIXELS
) -> Image.Image:  # fmt: skip
    """The image of a file that `open_image` would open, or of its bytes wherever they lie.

    Args:
        file: its path, or the bytes as an open file.
        name: for messages.
        rotate: see `open_image`.
        most_pixels: see `open_image`.

    Raises:
        DataError: with the name, as `open_image`.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns from 90 million pixels on, which phones reach, and refuses twice as many.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file, formats=_formats()) as image:
                if image.width * image.height > most_pixels:
                    raise Image.DecompressionBombError
                return _to_rgb(ImageOps.exif_transpose(image) if rotate else image)
    except Image.DecompressionBombError as error:
        limit = min(most_pixels, MOST_PIXELS)
        raise DataError(f"cannot read the image {name}: it has more than {limit:,} pixels: make it smaller") from error
    except UnidentifiedImageError as error:
        read = ", ".join(_formats())
        raise DataError(f"cannot read the image {name}: it is none of {read}, or damaged") from error
    except Exception as error:  # Pillow's decoders raise a dozen types
        raise DataError(f"cannot read the image {name}: {' '.join(str(error).split())}") from error


def open_truncated(
    reference: str, root: str, *, rotate: bool = False, most_pixels: int = MOST_PIXELS
) -> Image.Image:  # fmt: skip
    """The image as `open_image` gives it, also of a file that is cut short: what is missing is grey or black.

    Raises:
        DataError: as `open_image`, where Pillow finds no image in the file at all.
    """
    with _truncated_files():
        return open_image(reference, root, rotate=rotate, most_pixels=most_pixels)


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def _truncated_files() -> Iterator[None]:
    with PILLOW:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65_535) // 256).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns
    return image.convert("RGB")
