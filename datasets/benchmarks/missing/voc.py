"""PASCAL VOC with missing labels: 2007 with partial labels, 2012 with single positives.

Objects that are difficult do not count, unlike in users' own folders (`formats.voc`). VOC2007 is read from its XML
files, VOC2012 from the lists of each class in `ImageSets/Main`, where 1 is present, 0 difficult and -1 absent: as the
code of the protocols does.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from datasets.benchmarks.downloads import Downloads, Progress
from datasets.benchmarks.missing import indices
from datasets.benchmarks.missing.sources import Sources
from datasets.formats.text import read_text
from datasets.formats.voc import read_image_set
from datasets.records import DataError, Entry, Records, collect, first_few, notes_of

__all__ = ["CLASSES", "largeloss", "partial", "splc"]

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VALUES = ("-1", "0", "1")


def partial(downloads: Downloads, progress: Progress) -> Sources:
    """VOC2007's `trainval.txt` and `test.txt`, 5,011 and 4,952 images."""
    parts = progress(("trainval", "test"), "XML files of VOC2007")
    train, test = (_from_xml(downloads, part) for part in parts)
    return Sources(train, test, notes_of((train, test)))


def largeloss(downloads: Downloads, progress: Progress) -> Sources:
    """VOC2012's training and validation images in the order of their names, 5,717 and 5,823."""
    train, test = (_from_lists(downloads, part, progress) for part in ("train", "val"))
    return Sources(train, test)


def splc(downloads: Downloads, progress: Progress) -> Sources:
    """The images and labels of SCPNet's list; test images are VOC2012's validation images."""
    test = _from_lists(downloads, "val", progress)
    folder = os.path.dirname(test.images[0])
    return Sources(indices.read(indices.need_list(downloads, "voc_train.txt"), CLASSES, f"{folder}/"), test)


def _places(year: str, name: str) -> list[str]:
    return [f"{folder}ImageSets/Main/{name}" for folder in ("", f"VOC{year}/", f"VOCdevkit/VOC{year}/")]


def _from_xml(downloads: Downloads, part: str) -> Records:
    path = downloads.need(f"the list of {part} images of VOC2007", *_places("2007", f"{part}.txt"))
    records = read_image_set(path, difficult=False)
    if foreign := set(records.classes) - set(CLASSES):
        raise DataError(f"{path}: {first_few(foreign)} not among the 20 labels of VOC")
    images = tuple(Path(os.path.relpath(image, downloads.root)).as_posix() for image in records.images)
    return records._replace(images=images, classes=CLASSES)


def _from_lists(downloads: Downloads, part: str, progress: Progress) -> Records:
    labels: dict[str, list[str]] = {}
    for k, name in enumerate(progress(CLASSES, f"lists of {part} images of VOC2012")):
        path = downloads.need(f"the list of {name} in VOC2012", *_places("2012", f"{name}_{part}.txt"))
        listed = dict(_values(path))
        if k and listed.keys() != labels.keys():
            raise DataError(f"{path}: lists other images than those of the classes before: unpack VOC2012 again")
        for stem, value in listed.items():
            labels.setdefault(stem, []).extend([name] if value == "1" else [])
    folder = path.parents[2] / "JPEGImages"
    entries = (
        Entry(f"{path.parent}: {stem}", (folder.relative_to(downloads.root) / f"{stem}.jpg").as_posix(), labels[stem])
        for stem in sorted(labels)
    )
    return collect(entries, str(path.parent), classes=CLASSES)


def _values(path: Path) -> Iterator[tuple[str, str]]:
    """Names of images, and whether the class is in them."""
    for i, line in enumerate(read_text(path).split("\n"), 1):
        cells = line.split()
        if cells and (len(cells) != 2 or cells[1] not in VALUES):
            raise DataError(f"{path}, line {i}: {line[:80]!r} is not the name of an image and -1, 0 or 1")
        if cells:
            yield cells[0], cells[1]
