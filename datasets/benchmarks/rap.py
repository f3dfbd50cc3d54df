"""RAPv1 with 35 seen and 16 unseen pedestrian attributes (paper, Section 5.1), from `RAP_annotation.mat`.

Li et al. 2016, "A Richly Annotated Dataset for Pedestrian Attribute Recognition".
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from datasets.benchmarks import rap_annotation
from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.rap_annotation import CLASSES, SKIRTS, Annotation
from datasets.benchmarks.released import Released, comparison, file_name, find_released, without_images
from datasets.records import DataError, Records
from datasets.splits import most_frequent

__all__ = ["CLASSES", "SEEN", "prepare"]

SEEN = 35  # the most frequent ones, where Skirt counts for all three of SKIRTS
BORDER = range(SEEN - 1, SEEN + 3)  # ranks to report
UNCERTAIN = ("positive", "negative")
SKIRT_LABELS = ("mat", "merged")
ANNOTATION = tuple(f"{folder}RAP_annotation.mat" for folder in ("RAP_annotation/", "", "RAP/RAP_annotation/", "RAP/"))
IMAGE_FOLDERS = ("RAP_dataset", "RAP/RAP_dataset")


class Parts(NamedTuple):
    """Images of training and test; `partition` is their number in the official file, None without it. `exact`: whether
    the test images are the authors', and those of that partition.
    """

    train: Records
    test: Records
    released: Released
    partition: int | None
    exact: bool
    notes: tuple[str, ...]


def prepare(
    downloads: Downloads,
    *,
    seed: int,  # noqa: ARG001 - as every benchmark; nothing is drawn here
    partition: int | None = None,
    uncertain: str = "positive",
    skirts: str = "mat",
    progress: Progress = plain,
) -> Lists:
    """The lists of RAPv1 35/16.

    Seen labels are the 35 that most training images have, where an image with a short skirt or a dress counts as one
    with a skirt. Paths are as `RAP_dataset/CAM18_..._line1.png`.

    Args:
        downloads: with `RAP_annotation.mat` in `RAP_annotation` or in the root. Lists of the authors are taken as they
            are, and make the file needless if both are there.
        seed: not used.
        partition: which of the five official ones, from 0; None: the one with the test images of the authors' list,
            or else 0. With one that has not, the authors' lists are left out.
        uncertain: what the code 2 counts as, "positive" as in the authors' list, or "negative".
        skirts: "mat": the three labels as the file has them; "merged": each of them for all three, as in the
            authors' list.
        progress: shows the progress.

    Raises:
        ValueError: if there is no such choice.
        MissingFileError: if a file is needed and not there.
        DataError: if a file is not what its name says, or has no such partition.
    """
    for value, choices in ((uncertain, UNCERTAIN), (skirts, SKIRT_LABELS)):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    given = find_released(downloads, "RAP", CLASSES, SEEN)
    lacking = partition is None and downloads.find(*ANNOTATION) is None
    if lacking and given.train is not None and given.test is not None:
        parts = Parts(given.train, given.test, given, None, True, ())
    else:
        path = downloads.need("the annotation of RAPv1", *ANNOTATION)
        folder = _image_folder(downloads.root)
        options = {"uncertain_is_positive": uncertain == "positive", "merge_skirts": skirts == "merged"}
        (annotation,) = (rap_annotation.read(p, folder, **options) for p in progress([path], "annotation of RAPv1"))
        parts = _parts(annotation, given, partition)
    seen, notes = _seen(parts)
    return open_vocabulary(
        parts.train,
        parts.test,
        [name for name in CLASSES if name in seen],
        [name for name in CLASSES if name not in seen],
        origin=_origin(downloads, parts, uncertain, skirts),
        released=parts.released.final,
        notes=[*parts.released.notes, *parts.notes, *_coding(parts), *notes],
    )


def _image_folder(root: Path) -> str:
    return next((folder for folder in IMAGE_FOLDERS if (root / folder).is_dir()), IMAGE_FOLDERS[0])


def _origin(downloads: Downloads, parts: Parts, uncertain: str, skirts: str) -> dict[str, Any]:
    test = "the authors' list" if parts.released.test is not None else f"partition {parts.partition}"
    return {
        "benchmark": "rap",
        "rule": f"the {SEEN} labels that most training images have are seen, Skirt counted with Short Skirt and Dress; "
        f"training images have a seen label and no unseen one; the test images are those of {test}",
        "partition": parts.partition,
        "uncertain": uncertain,
        "skirts": skirts,
        "seed": None,
        "exact": parts.exact,
        "sources": downloads.checksums(),
    }


def _parts(annotation: Annotation, given: Released, wanted: int | None) -> Parts:
    """Training and test images by the official file and the authors' lists."""
    number, matches, notes = _partition(annotation, given.test, wanted)
    notes = (*notes, f"{annotation.uncertain:,} labels have the code 2, uncertain", *annotation.records.notes)
    if wanted is not None and not matches and given.test is not None:
        notes = (*notes, f"the authors' lists are left out: partition {wanted} has other test images")
        given = Released(None, None, None)
    train, test = (annotation.records.rows(rows) for rows in annotation.partitions[number])
    lists = [records for records in (given.train, given.test) if records is not None]
    notes = (*notes, *(comparison(records, annotation.records) for records in lists))
    if given.test is not None:
        test = given.test
    pool = train if given.train is None else given.train
    train = without_images(pool, test.images)
    overlap = len(pool.images) - len(train.images)
    if given.train is not None:
        if overlap and given.test is None:
            raise DataError(
                f"{overlap:,} images of {given.train.source} are test images of partition {number}: choose another "
                "partition, or put the authors' test.json beside it"
            )
        return Parts(given.train, test, given, number, matches, notes)
    if overlap:
        notes = (*notes, f"{overlap:,} training images of partition {number} are test images of the authors: left out")
    return Parts(train, test, given, number, matches, notes)


def _partition(annotation: Annotation, test: Records | None, wanted: int | None) -> tuple[int, bool, tuple[str, ...]]:
    """The number of the partition, whether it has the images of `test`, and what to note."""
    count = len(annotation.partitions)
    if wanted is not None and not 0 <= wanted < count:
        raise DataError(f"{annotation.records.source} has the partitions 0 to {count - 1}, there is no {wanted}")
    matching: list[int] = []
    if test is not None:
        names, images = {file_name(image) for image in test.images}, annotation.records.images
        sets = [{file_name(images[row]) for row in partition.test} for partition in annotation.partitions]
        matching = [number for number, members in enumerate(sets) if members == names]
    if wanted is not None:
        return wanted, wanted in matching, (f"partition {wanted} of {count}, as chosen",)
    if matching:
        note = f"partition {matching[0]} of {count}: its test images are those of the authors"
        return matching[0], True, (note,)
    if test is None:
        return 0, False, (f"partition 0 of {count}, the usual one; that of the paper is known from RAP/test.json only",)
    return 0, False, (f"partition 0 of {count}: none of them has the test images of the authors",)


def _coding(parts: Parts) -> list[str]:
    """A note if training and test images have the labels of `SKIRTS` by different rules."""
    kinds = [{len(set(SKIRTS) & set(row)) for row in records.labels} for records in (parts.train, parts.test)]
    train_is_merged, test_is_merged = (values <= {0, len(SKIRTS)} for values in kinds)
    if parts.released.test is None or train_is_merged or not test_is_merged:
        return []
    return [f"{', '.join(SKIRTS)} are one label in the authors' test list and three in training: see --skirts merged"]


def _seen(parts: Parts) -> tuple[set[str], list[str]]:
    """The seen labels, and notes on what decided it."""
    if parts.released.seen is not None:
        return set(parts.released.seen), []
    rows = parts.train.labels
    grouped = [row if set(SKIRTS).isdisjoint(row) else tuple(dict.fromkeys((*row, SKIRTS[0]))) for row in rows]
    images, images_grouped = (Counter(label for row in table for label in row) for table in (rows, grouped))
    ranking = most_frequent(parts.train._replace(labels=tuple(grouped)), len(CLASSES))
    kinds = ", ".join(f"{name} {images[name]:,}" for name in SKIRTS)
    border = ", ".join(f"{rank} {ranking[rank - 1]} {images_grouped[ranking[rank - 1]]:,}" for rank in BORDER)
    return set(ranking[:SEEN]), [
        f"training images with {kinds}; with any of the three, which is what Skirt counts as: "
        f"{images_grouped[SKIRTS[0]]:,}",
        f"training images of the labels at ranks {BORDER[0]} to {BORDER[-1]}, of which {SEEN} are seen: {border}",
    ]
