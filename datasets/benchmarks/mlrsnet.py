"""MLRSNet with 40 seen and 20 unseen labels of aerial scenes (paper, Section 5.1), from its label tables.

Qi et al. 2020, "MLRSNet: A Multi-label High Spatial Resolution Remote Sensing Dataset". There is no official division
into training and test: the authors' 21,823 test images are known from their list only, a fifth of every category.
That list has wrong labels for 3,052 of them (see `mlrsnet_tables`). Which 20 labels are unseen is not public.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.mlrsnet_tables import CLASSES, find_tables, need_tables
from datasets.benchmarks.released import Released, comparison, differing, file_name, find_released, without_images
from datasets.records import DataError, MissingFileError, Records, first_few
from datasets.shuffle import shuffled

__all__ = ["CLASSES", "UNSEEN", "prepare"]

UNSEEN = 20
LABELS = ("header", "positional")
CHOICES = ("last", "random")
TEST_SHARE = 5  # one in so many images of a category, rounded down
POSITIONAL_NOTE = (
    "the labels are read by position, the mistake of the released list: those of desert, golf_course, intersection, "
    "island, parkway, railway_station and wetland are wrong, and numbers are comparable to the paper's only"
)
NO_TABLES_NOTE = (
    "there are no label tables: the labels are those of the authors' lists, read by position, which are wrong for "
    "seven of the 46 categories"
)


class Parts(NamedTuple):
    """Images of training and test; `drawn` tells whether a seed made the test list, `differing` how many of its images
    have other labels than in the authors' list.
    """

    train: Records
    test: Records
    drawn: bool
    differing: int
    notes: tuple[str, ...]


def prepare(
    downloads: Downloads, *, seed: int, labels: str = "header", unseen: str = "last", progress: Progress = plain
) -> Lists:
    """The lists of MLRSNet 40/20.

    Test images are those of the authors' list, all of them; or, without it, a fifth of every category drawn by the
    seed, of which those with a label. The others are the pool of training images. Paths are as
    `Images/airplane/airplane_00001.jpg`.

    Args:
        downloads: with a CSV for each category in `Labels` or `labels`; without these, with both lists of the authors.
        seed: of what is drawn.
        labels: "header": read by the header of each file, also for the images of the authors' lists; "positional": as
            in the authors' lists, which is wrong for seven categories, to compare with the paper.
        unseen: "last": the last 20 labels in alphabetical order, which gives as many training images as the paper
            has; "random": the first 20 in the order of `shuffled` by the seed. A training list of the authors with 40
            labels decides instead.
        progress: shows the progress.

    Raises:
        ValueError: if there is no such choice.
        MissingFileError: if a file is needed and not there; if there is a training list of the authors, and no test
            list.
        DataError: if a file is not what its name says, or is the corrupted version.
    """
    for value, choices in ((labels, LABELS), (unseen, CHOICES)):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    given = find_released(downloads, "MLRSNet", CLASSES, len(CLASSES) - UNSEEN)
    if given.train is not None and given.test is None:
        raise MissingFileError(
            f"{given.train.source}: the authors' training list needs their test.json beside it, since the test images "
            "are known from there only"
        )
    read = need_tables if given.train is None or given.test is None else find_tables
    tables = read(downloads, positional=labels == "positional", progress=progress)
    parts = _given_parts(given) if tables is None else _parts(given, tables, labels, seed)
    source = "positional" if tables is None else labels
    avoided = set(shuffled(CLASSES, seed)[:UNSEEN] if unseen == "random" else CLASSES[-UNSEEN:])
    if given.seen is not None:
        avoided, unseen = set(CLASSES) - set(given.seen), "released"
    return open_vocabulary(
        parts.train,
        parts.test,
        [name for name in CLASSES if name not in avoided],
        [name for name in CLASSES if name in avoided],
        origin={**_origin(given, parts, source, unseen, seed), "sources": downloads.checksums()},
        released={**given.final, **({} if parts.drawn else {"test": parts.test})},
        notes=[*given.notes, *parts.notes],
    )


def _origin(given: Released, parts: Parts, labels: str, unseen: str, seed: int) -> Mapping[str, Any]:
    split = {
        "last": f"the last {UNSEEN} labels in alphabetical order are unseen",
        "random": f"{UNSEEN} labels drawn by the seed are unseen",
        "released": "the seen labels are those of the authors' training list",
    }[unseen]
    test = "a fifth of every category, drawn by the seed" if parts.drawn else "those of the authors"
    reading = " (the mistake of the released list)" if labels == "positional" else ""
    return {
        "benchmark": "mlrsnet",
        "rule": f"{split}; training images have a seen label and no unseen one; the test images are {test}; labels are "
        f"read by {'position' if labels == 'positional' else 'header'}{reading}",
        "labels": labels,
        "unseen": unseen,
        "seed": seed if parts.drawn or unseen == "random" else None,
        "exact": given.test is not None and not parts.differing and given.seen is not None,
    }


def _given_parts(given: Released) -> Parts:
    """The authors' lists as they are."""
    assert given.train is not None  # else the tables are needed
    assert given.test is not None
    return Parts(given.train, given.test, drawn=False, differing=0, notes=(NO_TABLES_NOTE,))


def _parts(given: Released, tables: Records, labels: str, seed: int) -> Parts:
    """The images of the tables by the authors' lists, or by the seed."""
    lists = [records for records in (given.train, given.test) if records is not None]
    notes = [*tables.notes, *(comparison(records, tables) for records in lists)]
    if labels == "positional":
        notes.append(POSITIONAL_NOTE)
    if given.test is None:
        test = _drawn(tables, seed)
        notes.append(
            f"the authors' test list is not there: a fifth of every category is drawn with seed {seed} instead"
        )
    else:
        test = given.test if labels == "positional" else _relabelled(given.test, tables)
    train = given.train
    if train is None:
        train = without_images(tables, test.images)
    elif given.seen is not None:
        notes.append(f"{train.source} is taken as it is, with labels that the authors read by position")
    elif labels == "header":
        train = _relabelled(train, tables)
    changed = 0 if given.test is None else differing(given.test, test)
    return Parts(train, test, given.test is None, changed, tuple(notes))


def _drawn(tables: Records, seed: int) -> Records:
    """The test images by the seed, in the order of the tables."""
    of_category: dict[str, list[str]] = defaultdict(list)
    for image in tables.images:
        of_category[image.rpartition("/")[0]].append(file_name(image))
    rest = (shuffled(names, seed)[len(names) // TEST_SHARE :] for names in of_category.values())
    return without_images(tables, chain.from_iterable(rest))


def _relabelled(given: Records, tables: Records) -> Records:
    """The given images with the labels of the tables."""
    labels = {file_name(image): row for image, row in zip(tables.images, tables.labels, strict=True)}
    if lacking := [image for image in given.images if file_name(image) not in labels]:
        raise DataError(f"{given.source}: {len(lacking):,} images are not in {tables.source}: {first_few(lacking)}")
    return given._replace(labels=tuple(labels[file_name(image)] for image in given.images))
