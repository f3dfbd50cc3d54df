"""Lists of SPLC and SCPNet: an image and the numbers of its labels a line.

    COCO_train2014_000000480023.jpg,52
    123940_1158315062_02a15f03aa_m.jpg,42 60 79

https://github.com/xinyu1205/robust-loss-mlml and https://github.com/jameslahm/SCPNet, both in `dataset/`; labels count
from 0.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.benchmarks.downloads import Downloads
from datasets.formats.text import read_text
from datasets.records import DataError, Entry, Records, collect

__all__ = ["find_names", "need_list", "read"]

FOLDERS = ("", "splc/", "dataset/")  # below the root
WHERE = "SPLC's and SCPNet's repositories have it in dataset/"


def need_list(downloads: Downloads, name: str) -> Path:
    """A list.

    Raises:
        MissingFileError: if it is not there.
    """
    return downloads.need(f"the list {name} ({WHERE})", *(folder + name for folder in FOLDERS))


def find_names(downloads: Downloads, name: str, count: int) -> tuple[str, ...] | None:
    """The names of labels, one a line; None if there is no such file.

    Raises:
        DataError: if there are not `count`.
    """
    path = downloads.find(*(folder + name for folder in FOLDERS))
    if path is None:
        return None
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if len(names) != count:
        raise DataError(f"{path}: expected {count} names of labels, one a line, found {len(names)}")
    return names


def read(path: Path, classes: Sequence[str], folder: str) -> Records:
    """The records of a list, in its order.

    Args:
        path: of the list.
        classes: names of the labels.
        folder: put in front of the names of images.

    Raises:
        DataError: naming the line, if it is not as the module says.
    """
    return collect(_entries(path, classes, folder), str(path), classes=classes)


def _entries(path: Path, classes: Sequence[str], folder: str) -> Iterator[Entry]:
    for i, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        image, _, numbers = line.rpartition(",")
        try:
            indices = list(map(int, numbers.split()))
        except ValueError:
            indices = [-1]
        if not image.strip() or not all(0 <= index < len(classes) for index in indices):
            raise DataError(
                f"{path}, line {i}: {line[:80]!r} is not an image, a comma and numbers of labels between 0 and "
                f"{len(classes) - 1}"
            )
        yield Entry(f"{path}, line {i}", f"{folder}{image.strip()}", [classes[index] for index in indices])
