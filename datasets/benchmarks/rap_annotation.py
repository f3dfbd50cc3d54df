"""`RAP_annotation.mat` of RAPv1 (Li et al. 2016): images, the 51 attributes that are evaluated, five partitions."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.benchmarks import matlab
from datasets.records import DataError, Entry, Records, collect, first_few

__all__ = ["CLASSES", "OFFICIAL", "SKIRTS", "Annotation", "Partition", "read"]

OFFICIAL = {  # names in RAP_annotation.mat, in its order -> those of the release; the file has 41 further columns
    "Female": "Female", "AgeLess16": "AgeLess16", "Age17-30": "Age17-30", "Age31-45": "Age31-45",
    "BodyFat": "BodyFat", "BodyNormal": "BodyNormal", "BodyThin": "BodyThin", "Customer": "Customer",
    "Clerk": "Clerk", "hs-BaldHead": "BaldHead", "hs-LongHair": "Long Hair", "hs-BlackHair": "Black Hair",
    "hs-Hat": "Hat", "hs-Glasses": "Glasses", "hs-Muffler": "Muffler", "ub-Shirt": "Shirt", "ub-Sweater": "Sweater",
    "ub-Vest": "Vest", "ub-TShirt": "TShirt", "ub-Cotton": "Cotton", "ub-Jacket": "Jacket", "ub-SuitUp": "Suit-Up",
    "ub-Tight": "Tight", "ub-ShortSleeve": "Short Sleeve", "lb-LongTrousers": "Long Trousers", "lb-Skirt": "Skirt",
    "lb-ShortSkirt": "Short Skirt", "lb-Dress": "Dress", "lb-Jeans": "Jeans", "lb-TightTrousers": "Tight Trousers",
    "shoes-Leather": "Leather Shoes", "shoes-Sport": "Sport Shoes", "shoes-Boots": "Boots",
    "shoes-Cloth": "Cloth Shoes", "shoes-Casual": "Casual Shoes", "attach-Backpack": "Backpack",
    "attach-SingleShoulderBag": "SSBag", "attach-HandBag": "Hand Bag", "attach-Box": "Box",
    "attach-PlasticBag": "Plastic Bag", "attach-PaperBag": "Paper Bag", "attach-HandTrunk": "Hand Trunk",
    "attach-Other": "Other Attchment", "action-Calling": "Calling", "action-Talking": "Talking",
    "action-Gathering": "Gathering", "action-Holding": "Holding", "action-Pusing": "Pusing",
    "action-Pulling": "Pulling", "action-CarrybyArm": "Carrying by Arm", "action-CarrybyHand": "Carrying by Hand",
}  # fmt: skip
CLASSES = tuple(OFFICIAL.values())
SKIRTS = ("Skirt", "Short Skirt", "Dress")  # one and the same label in the released test list

# What the fields of the struct are, by position.
PARTITION, LABEL, ATTRIBUTE, IMAGE = 0, 1, 3, 5
UNCERTAIN = 2


class Partition(NamedTuple):
    """Rows of the training and test images, from 0."""

    train: tuple[int, ...]
    test: tuple[int, ...]


class Annotation(NamedTuple):
    """All images, whether of training or test; `uncertain` of their labels have the code 2."""

    records: Records
    partitions: tuple[Partition, ...]
    uncertain: int


def read(path: Path, folder: str, *, uncertain_is_positive: bool, merge_skirts: bool) -> Annotation:
    """The annotation, with the names of the release.

    Args:
        path: `RAP_annotation.mat`.
        folder: of the images, which comes before their names.
        uncertain_is_positive: whether the code 2 counts as a label that the image has.
        merge_skirts: give all of `SKIRTS` to an image with one of them.

    Raises:
        DataError: if the file is another one or contradicts itself; naming row and attribute of an unknown code.
    """
    struct = matlab.load(path, "RAP_annotation")["RAP_annotation"]
    fields = _reader(path, struct)
    images = matlab.texts(fields(IMAGE), f"{path}: image names")
    table = _evaluated(path, fields(LABEL), matlab.texts(fields(ATTRIBUTE), f"{path}: attributes"))
    codes = {"positive": (1, UNCERTAIN), "negative": (0,)}
    if not uncertain_is_positive:
        codes = {"positive": (1,), "negative": (0, UNCERTAIN)}
    rows = matlab.label_rows(table, CLASSES, where=f"{path}: labels", **codes)
    if len(rows) != len(images):
        raise DataError(f"{path}: there are {len(rows):,} rows of labels for {len(images):,} images")
    if repeated := [name for name, count in Counter(images).items() if count > 1]:
        raise DataError(f"{path}: the image {first_few(repeated)} is listed twice")
    if merge_skirts:
        rows = [_merged(row) for row in rows]
    where = [f"{path}: row {i}" for i in range(1, len(rows) + 1)]
    entries = (Entry(w, f"{folder}/{name}", row) for w, name, row in zip(where, images, rows, strict=True))
    records = collect(entries, str(path), classes=CLASSES)
    partitions = _partitions(path, fields(PARTITION), len(images))
    return Annotation(records, partitions, int((table == UNCERTAIN).sum()))


def _reader(path: Path, struct: Any) -> Callable[[int], Any]:
    """Gives a field of the struct."""
    if struct.dtype.names is None or struct.size != 1 or len(struct.dtype.names) <= IMAGE:
        raise DataError(f"{path}: RAP_annotation is not the struct with images, labels and partitions of RAPv1")
    content = struct.reshape(-1)[0]
    return lambda position: content[position]


def _evaluated(path: Path, table: Any, attributes: tuple[str, ...]) -> Any:
    """The columns of `CLASSES`, found by name."""
    if lacking := set(OFFICIAL) - set(attributes):
        raise DataError(f"{path}: there is no attribute {first_few(lacking)}: is it RAPv2, or translated?")
    if repeated := {name for name in OFFICIAL if attributes.count(name) > 1}:
        raise DataError(f"{path}: the attribute {first_few(repeated)} is listed twice")
    if table.ndim != 2 or table.shape[1] != len(attributes):
        raise DataError(f"{path}: expected a column for each of {len(attributes)} attributes, found {table.shape}")
    return table[:, [attributes.index(name) for name in OFFICIAL]]


def _merged(row: tuple[str, ...]) -> tuple[str, ...]:
    if set(SKIRTS).isdisjoint(row):
        return row
    return tuple(name for name in CLASSES if name in SKIRTS or name in row)


def _partitions(path: Path, cells: Any, images: int) -> tuple[Partition, ...]:
    """Every cell holds a struct of two lists of rows, from 1."""
    partitions = []
    for number, cell in enumerate(np.ravel(cells)):
        if getattr(cell, "dtype", np.dtype(int)).names is None or cell.size != 1 or len(cell.dtype.names) < 2:
            raise DataError(f"{path}: partition {number} is not a struct of training and test rows")
        content = cell.reshape(-1)[0]
        train, test = (tuple(int(row) - 1 for row in np.ravel(content[k])) for k in range(2))
        if outside := [row + 1 for row in train + test if not 0 <= row < images]:
            raise DataError(f"{path}: partition {number} has row {outside[0]} of {images:,} images")
        if repeated := [row + 1 for row, count in Counter(train + test).items() if count > 1]:
            raise DataError(f"{path}: partition {number} has row {repeated[0]} twice, in training, in test or in both")
        partitions.append(Partition(train, test))
    if not partitions:
        raise DataError(f"{path}: there are no partitions")
    return tuple(partitions)
