"""The authors' train.json and test.json of a benchmark, and how they compare with the official labels."""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from datasets.benchmarks.downloads import Downloads
from datasets.records import DataError, Records, first_few, notes_of

__all__ = ["Released", "comparison", "differing", "file_name", "find_released", "without_images"]


class Released(NamedTuple):
    """The lists that are there. `seen`: the classes of `train` if it is of the seen labels only, else None."""

    train: Records | None
    test: Records | None
    seen: tuple[str, ...] | None

    @property
    def final(self) -> dict[str, Records]:
        """The lists that need no rule, by their names in `Lists`: they are taken as they are."""
        lists = {"train": None if self.seen is None else self.train, "test": self.test}
        return {name: records for name, records in lists.items() if records is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the lists merged."""
        return notes_of(records for records in (self.train, self.test) if records is not None)


def find_released(downloads: Downloads, folder: str, classes: Sequence[str], seen: int) -> Released:
    """The authors' lists of a benchmark, each one that is there.

    Args:
        downloads: with `folder`/test.json or test.json, and the same of train.json.
        folder: as the authors name it.
        classes: all labels of the benchmark, of which the test list has to be; a training list can be of the seen
            ones instead.
        seen: how many there are of those.

    Raises:
        DataError: if a list is of other labels.
    """
    train, test = (downloads.released(f"{folder}/{name}", name) for name in ("train.json", "test.json"))
    for records in (train, test):
        if records is None or set(records.classes) == set(classes):
            continue
        if records is train and len(train.classes) == seen and set(train.classes) < set(classes):
            continue
        wrong = set(records.classes) ^ set(classes)
        raise DataError(f"{records.source}: its classes are not the {len(classes)} of {folder}: {first_few(wrong)}")
    return Released(train, test, train.classes if train is not None and len(train.classes) == seen else None)


def differing(given: Records, official: Records) -> int:
    """The number of given images that have other labels in the official annotations, or are not in them.

    Images are the same if their file names are; labels that either list has no class for do not count.
    """
    common = set(given.classes) & set(official.classes)
    labels = {file_name(i): common & set(row) for i, row in zip(official.images, official.labels, strict=True)}
    pairs = zip(given.images, given.labels, strict=True)
    return sum(labels.get(file_name(image)) != common & set(row) for image, row in pairs)


def comparison(given: Records, official: Records) -> str:
    """A note of the `differing` images."""
    return (
        f"{differing(given, official):,} of {len(given.images):,} images of {given.source} have other labels in "
        f"{official.source}, or are not in it"
    )


def without_images(records: Records, others: Iterable[str]) -> Records:
    """The records without the images that have the file name of one of the others."""
    names = set(map(file_name, others))
    return records.rows(i for i, image in enumerate(records.images) if file_name(image) not in names)


def file_name(image: str) -> str:
    """The last part of a path with slashes or backslashes."""
    return PurePosixPath(image.replace("\\", "/")).name
