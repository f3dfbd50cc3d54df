"""MS-COCO 2014 with 48 seen and 17 unseen labels (paper, Table 1), from `instances_{train,val}2014.json`.

The 6,392 test images cannot be derived from the annotations: they are those of a sample of 6,608 images of val2014
(Bansal et al. 2018, "Zero-Shot Object Detection") that show one of the labels. They are known from the authors'
`test_65_filtered.json`, or from the file of ZSI (Zheng et al. 2021) that it was made of.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.released import differing, file_name
from datasets.formats import instances
from datasets.records import DataError, Records, first_few, notes_of
from datasets.shuffle import shuffled
from datasets.splits import restrict

__all__ = ["SEEN", "UNSEEN", "prepare", "read_instances"]

# Both in the order of ZSI and of the release.
SEEN = (
    "person", "bicycle", "car", "motorcycle", "truck", "boat", "bench", "bird", "horse", "sheep", "zebra", "giraffe",
    "backpack", "handbag", "skis", "kite", "surfboard", "bottle", "spoon", "bowl", "banana", "apple", "orange",
    "broccoli", "carrot", "pizza", "donut", "chair", "bed", "tv", "laptop", "remote", "microwave", "oven",
    "refrigerator", "book", "clock", "vase", "toothbrush", "train", "bear", "suitcase", "frisbee", "fork", "sandwich",
    "toilet", "mouse", "toaster",
)  # fmt: skip
UNSEEN = (
    "bus", "dog", "cow", "elephant", "umbrella", "tie", "skateboard", "cup", "knife", "cake", "couch", "keyboard",
    "sink", "scissors", "airplane", "cat", "snowboard",
)  # fmt: skip

SAMPLE, VAL2014 = 6_608, 40_504  # images of the sample, and of what it was drawn from
RELEASED = {
    "train": ("train_48_filtered.json", SEEN),
    "test": ("test_65_filtered.json", SEEN + UNSEEN),
    "test_zsl": ("test_17_filtered.json", UNSEEN),
}
VAL = "instances_val2014.json"
ZSI = "instances_val2014_gzsi_48_17.json"
EXPECTED = "the object annotations of MS-COCO 2014 (instances_*.json, not captions, keypoints or panoptic ones)"
RULES = {
    "released": "the test images are those of the authors' test_65_filtered.json",
    "zsi": f"the test images are those of {ZSI} that have annotations",
    "substitute": "the test images are a sample of val2014 of the size of the authors', drawn by the seed",
}


class TestImages(NamedTuple):
    """The test images by one of the `RULES`; `differing` of them have other labels in `instances_val2014.json`."""

    rule: str
    records: Records
    differing: int
    notes: tuple[str, ...]


def prepare(downloads: Downloads, *, seed: int, progress: Progress = plain) -> Lists:
    """The lists of COCO 48/17.

    Training images are those of train2014 with a seen label and no unseen one (44,909); test images those of the
    authors' `test_65_filtered.json` or of ZSI's file, or else a sample of val2014, which is not exact. Any annotation
    counts, also of a crowd. Paths are as `train2014/COCO_train2014_000000000009.jpg`.

    Args:
        downloads: with `instances_{train,val}2014.json` in `annotations` or in the root. Lists of the authors are
            taken as they are, and make the file needless that they come from.
        seed: of the sample.
        progress: shows the progress.

    Raises:
        MissingFileError: if a file is needed and not there.
        DataError: if a file is not what its name says.
    """
    released = _released(downloads)
    files = _files(downloads, released)
    read = {key: read_instances(path) for key, path in progress(list(files.items()), "annotation files of COCO")}
    test = _test_images(released, read, seed)
    odd = _odd_zsl_images(test.records, released)
    notes = test.notes + notes_of((*released.values(), *read.values()))
    if odd:
        notes = (*notes, f"{odd:,} images of test_17_filtered.json do not agree with those of test_65_filtered.json")
    origin = {
        "benchmark": "coco",
        "rule": f"training images have a seen label and no unseen one; {RULES[test.rule]}",
        "test_split": test.rule,
        "seed": seed if test.rule == "substitute" else None,
        "exact": test.rule != "substitute" and not test.differing and not odd,
        "sources": downloads.checksums(),
    }
    train = released["train"] if "train" in released else read["train"]
    return open_vocabulary(train, test.records, SEEN, UNSEEN, origin=origin, released=released, notes=notes)


def _released(downloads: Downloads) -> dict[str, Records]:
    """The authors' lists by their names in `Lists`; that of the unseen labels goes with that of all labels only."""
    lists: dict[str, Records] = {}
    for key, (name, classes) in RELEASED.items():
        records = None if key == "test_zsl" and "test" not in lists else downloads.released(name)
        if records is None:
            continue
        if wrong := set(records.classes) ^ set(classes):
            raise DataError(
                f"{records.source}: its classes are not the {len(classes)} of COCO 48/17: {first_few(wrong)}"
            )
        lists[key] = records
    return lists


def _files(downloads: Downloads, released: Mapping[str, Records]) -> dict[str, Path]:
    """The annotation files to read: of train2014, of val2014, of ZSI."""

    def places(name: str) -> tuple[str, str]:
        return f"annotations/{name}", name

    files: dict[str, Path | None] = {}
    if "train" not in released:
        files["train"] = downloads.need("the annotation file of training images", *places("instances_train2014.json"))
    if "test" not in released:
        files["zsi"] = downloads.find(*places(ZSI))
    files["val"] = downloads.find(*places(VAL))
    if "test" not in released and files["zsi"] is None:
        files["val"] = downloads.need("the annotation file of validation images", *places(VAL))
    return {key: path for key, path in files.items() if path is not None}


def _test_images(released: Mapping[str, Records], read: Mapping[str, Records], seed: int) -> TestImages:
    if "test" in released:
        rule, records = "released", released["test"]
    elif "zsi" in read:
        rule, records = "zsi", restrict(read["zsi"], SEEN + UNSEEN, drop_empty=True)
    else:
        return _substitute(read["val"], seed)
    if "val" not in read:
        return TestImages(rule, records, 0, (f"the labels of the test images are not compared: there is no {VAL}",))
    odd = differing(records, read["val"])
    note = f"{odd:,} of {len(records.images):,} test images have other labels in {VAL}, or are not in it"
    return TestImages(rule, records, odd, (note,))


def _substitute(official: Records, seed: int) -> TestImages:
    """As large a part of val2014 as that of the paper."""
    count = round(len(official.images) * SAMPLE / VAL2014)
    drawn = set(shuffled([file_name(image) for image in official.images], seed)[:count])
    sample = official.rows(i for i, image in enumerate(official.images) if file_name(image) in drawn)
    note = (
        "the 6,392 and 2,729 test images of the paper cannot be derived from the annotations, only "
        f"test_65_filtered.json of the authors or {ZSI} makes them exact; the test images are {count:,} of val2014 "
        f"drawn with seed {seed} instead, and numbers on them are not comparable to published ones"
    )
    return TestImages("substitute", sample, 0, (note,))


def _odd_zsl_images(test: Records, released: Mapping[str, Records]) -> int:
    """The number of images that the authors' ZSL list has and that of all labels has not, or the other way round."""
    if "test_zsl" not in released:
        return 0
    derived, given = (
        {(image, frozenset(row)) for image, row in zip(records.images, records.labels, strict=True)}
        for records in (restrict(test, UNSEEN, drop_empty=True), released["test_zsl"])
    )
    return len({image for image, _ in derived ^ given})


def read_instances(path: Path) -> Records:
    """All images of an `instances_*.json` with the names of all categories that are annotated in them.

    Raises:
        DataError: if the file is another one than its name says.
    """
    records = instances.records_of(_parse(path), path)
    if lacking := {*SEEN, *UNSEEN} - set(records.classes):
        raise DataError(f"{path}: expected {EXPECTED}, but there is no category {first_few(lacking)}")
    folder, other = ("train2014", "val2014") if "train2014" in path.name else ("val2014", "train2014")
    if wrong := [image for image in records.images if image.startswith(f"COCO_{other}_")]:
        raise DataError(f"{path}: {wrong[0]!r} is an image of {other}: the file is not what its name says")
    return records._replace(images=tuple(f"{folder}/{image}" for image in records.images))


def _parse(path: Path) -> Any:
    """What the file holds."""
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(path)).dataset
    except ValueError as error:
        raise DataError(f"{path}: broken JSON: {error}; unpack the download again") from error
    except (AssertionError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected {EXPECTED}, but pycocotools stops at {error!r}") from error
