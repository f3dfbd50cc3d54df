"""ROLE's lists of the images of NUS-WIDE that were still on Flickr (Cole et al. 2021, "Multi-Label Learning from
Single Positive Labels"), joined with the official tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.nus_photos import PhotoIndex
from datasets.records import DataError, Entry, Records, collect
from files import open_regular

__all__ = ["find_list", "joined", "load_array", "load_names", "need_list"]

LISTS = {"train": "formatted_train_images.npy", "test": "formatted_val_images.npy"}


def find_list(downloads: Downloads, key: str) -> Path | None:
    """The list of the "train" or "test" images, if it is in the root or in `role`."""
    return downloads.find(*_places(key))


def need_list(downloads: Downloads, key: str) -> Path:
    """As `find_list`.

    Raises:
        MissingFileError: if it is not there.
    """
    return downloads.need(f"ROLE's list of {key} images", *_places(key))


def _places(key: str) -> tuple[str, str]:
    return LISTS[key], f"role/{LISTS[key]}"


def joined(files: Mapping[str, Path], *tables: Records) -> tuple[dict[str, Records], tuple[str, ...]]:
    """The images of each list with the labels that the official tables have for the photo.

    Args:
        files: lists of image file names by any scheme, arrays of text.
        tables: disjoint parts of the official images, of the same classes.

    Returns:
        Records with official paths, in the order of the list, by the keys of `files`; and notes, which count names
        that belong to no official image.

    Raises:
        DataError: if a file is no array of text.
    """
    images = [image for table in tables for image in table.images]
    labels = [row for table in tables for row in table.labels]
    index = PhotoIndex(images)
    notes = []
    if index.shared:
        notes.append(f"{index.shared:,} photo ids have several official images: a name without its folder is the first")
    lists = {}
    for key, path in files.items():
        rows = [(i, index.find(name)) for i, name in enumerate(load_names(path))]
        entries = [Entry(f"{path}: [{i}]", images[row], labels[row]) for i, row in rows if row is not None]
        lists[key] = collect(entries, str(path), classes=tables[0].classes)
        notes.append(f"{len(rows) - len(entries):,} of {len(rows):,} names in {path.name} belong to no official image")
    return lists, tuple(notes)


def load_names(path: Path) -> Sequence[str]:
    """The names in an array of text.

    Raises:
        DataError: if it is none.
    """
    array = load_array(path, "text")
    if array.ndim != 1 or array.dtype.kind not in "US":
        what = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{path}: expected a one-dimensional array of image file names, found {what}")
    return (np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array).tolist()


def load_array(path: Path, content: str) -> np.ndarray:
    """The array in a file; no pickle is ever opened.

    Raises:
        DataError: if there is none; it says that one of `content` is expected.
    """
    try:
        with open_regular(path) as file:
            array = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # the head of the file is read as a piece of Python, which fails in many ways
        raise DataError(
            f"{path}: expected an array of {content}; a pickled one is not read, since it can run code: save it again "
            f"with np.save(path, array.astype(str)) ({error})"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected an array of {content}, found an archive")
    return array
