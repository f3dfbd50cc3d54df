"""Labels that training is not told of: a list thinned at random, to measure what methods make of missing labels.

    share   each entry, an image and a label, is known by itself: where a uniform number is below the share. The
            numbers do not depend on it, so what is known at 10 % is known at 20 % too. As in SST and SARB (Chen et al.
            and Pu et al., AAAI 2022, https://github.com/HCPLab-SYSU/HCP-MLR-PL).
    single  of each image one of its present labels is known, and nothing else. As in ROLE (Cole et al., CVPR 2021,
            https://github.com/elijahcole/single-positive-multi-label).

Both draw row by row in the order of the file, columns in the order of its classes, from NumPy's legacy generator: its
numbers never change (NEP 19), and published protocols were drawn from it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

import numpy as np

from datasets.records import DataError, Records

__all__ = ["ALL", "SINGLE", "known_entries", "single_positives", "thinned", "told"]

ALL, SINGLE = 1.0, 0.0  # what DATASETS.KNOWN says of all labels, and of one present label of each image
BLOCK = 4096  # rows that are drawn at once


def known_entries(rows: int, columns: int, share: float, seed: int) -> Iterator[np.ndarray]:
    """Which entries of each row are known: (columns,) bool, each true with probability `share`."""
    random = np.random.RandomState(seed)
    for start in range(0, rows, BLOCK):
        yield from random.random_sample((min(BLOCK, rows - start), columns)) < share


def single_positives(positives: Iterable[Sequence[int]], columns: int, seed: int) -> Iterator[int | None]:
    """One of the present labels of each row, drawn at random; None for a row without any.

    Args:
        positives: columns of the labels that are present, rising.
        columns: number of labels.
        seed: of the drawing.
    """
    random = np.random.RandomState(seed)
    for row in positives:
        present, is_absent = np.array(row, dtype=np.int64), np.ones(columns, dtype=bool)
        is_absent[present] = False
        random.shuffle(present)
        random.shuffle(np.flatnonzero(is_absent))  # ROLE draws absent labels too and takes none of them
        yield int(present[0]) if len(present) else None


def thinned(records: Records, share: float, seed: int) -> Records:
    """The records with what training is not told of in `hidden`.

    Args:
        records: as they stand in the file: which entries are drawn depends on the order of images and classes.
        share: of the entries that are known; `ALL`, or `SINGLE`.
        seed: of the drawing.
    """
    if share == ALL:
        return records
    classes = records.classes
    if share == SINGLE:
        column = {label: c for c, label in enumerate(classes)}
        positives = (sorted(column[label] for label in row) for row in records.labels)
        kept = single_positives(positives, len(classes), seed)
        hidden = tuple(classes if c is None else classes[:c] + classes[c + 1 :] for c in kept)
    else:
        rows = known_entries(len(records.images), len(classes), share, seed)
        hidden = tuple(tuple(compress(classes, (~known).tolist())) for known in rows)
    return records._replace(hidden=hidden)


def told(records: Records, *, keep_unknown: bool) -> tuple[Records, tuple[str, ...]]:
    """What training is told of the records, and a note that counts it.

    Args:
        records: with what is `hidden`, if anything is.
        keep_unknown: whether hidden labels are not known then; else they count as absent.

    Raises:
        DataError: if no label that is present is left.
    """
    if not records.hidden:
        return records, ()
    labels = tuple(_without(row, hidden) for row, hidden in zip(records.labels, records.hidden, strict=True))
    unknown, hidden = records.unknown or ((),) * len(labels), records.hidden
    unknown = tuple(_united(row, more) for row, more in zip(unknown, hidden, strict=True))
    present, entries = sum(map(len, labels)), len(labels) * len(records.classes)
    if not present:
        raise DataError(f"{records.source}: no label that is present is left to train on: raise DATASETS.KNOWN")
    known = entries - sum(map(len, unknown))
    note = (
        f"{records.source}: of {entries:,} labels of training images {known:,} are known, {present:,} of them present; "
        f"the others count as {'not known' if keep_unknown else 'absent'} (DATASETS.KNOWN, UNKNOWN)"
    )
    return records._replace(labels=labels, unknown=unknown if keep_unknown else (), hidden=()), (note,)


def _without(labels: Sequence[str], hidden: Sequence[str]) -> tuple[str, ...]:
    if not labels:
        return ()
    left_out = frozenset(hidden)
    return tuple(label for label in labels if label not in left_out)


def _united(labels: Sequence[str], more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*labels, *more))) if labels else more
