"""MS-COCO 2014 with missing labels: `instances_{train,val}2014.json`, and for SPLC its list. Paths as
`train2014/COCO_train2014_000000000009.jpg`.
"""

from pathlib import PurePath

from datasets.benchmarks.coco import read_instances
from datasets.benchmarks.downloads import Downloads, Progress
from datasets.benchmarks.missing import indices
from datasets.benchmarks.missing.sources import Sources
from datasets.records import Records, notes_of

__all__ = ["largeloss", "partial", "splc"]

LABELS = 80
SINGLE_LABELS = "coco_train_singlelabel.txt"


def partial(downloads: Downloads, progress: Progress) -> Sources:
    """All images in the order of the files, also those without annotations: 82,783 and 40,504."""
    train, test = (_read(downloads, split) for split in progress(("train2014", "val2014"), "annotation files of COCO"))
    return Sources(train, test, notes_of((train, test)), exact=len(train.classes) == LABELS)


def largeloss(downloads: Downloads, progress: Progress) -> Sources:
    """The annotated images in the order of their ids as texts: 82,081 and 40,137."""
    every = partial(downloads, progress)
    train, test = (_by_id(_annotated(records)) for records in (every.train, every.test))
    return Sources(train, test, exact=every.exact)


def splc(downloads: Downloads, progress: Progress) -> Sources:
    """The images and labels of SPLC's list; test images are the annotated ones of val2014."""
    (test,) = (_read(downloads, split) for split in progress(("val2014",), "annotation files of COCO"))
    train = indices.read(indices.need_list(downloads, SINGLE_LABELS), test.classes, "train2014/")
    return Sources(train, _annotated(test), exact=len(test.classes) == LABELS)


def _read(downloads: Downloads, split: str) -> Records:
    name = f"instances_{split}.json"
    return read_instances(downloads.need("an annotation file", f"annotations/{name}", name))


def _annotated(records: Records) -> Records:
    return records.rows(i for i, row in enumerate(records.labels) if row)


def _by_id(records: Records) -> Records:
    """In the order of "100", "1000", "99": ROLE has ids as keys of JSON, and sorts them."""
    ids = [str(int(PurePath(image).stem.rpartition("_")[2])) for image in records.images]
    return records.rows(sorted(range(len(ids)), key=ids.__getitem__))
