"""The open-vocabulary protocol: which labels are seen and unseen, and which images test what."""

from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datasets.records import DataError, Records, alike, first_few

__all__ = ["Vocabulary", "most_frequent", "restrict", "targets", "vocabulary", "images_without"]


class Vocabulary(NamedTuple):
    """Label names, each part in ASCII order (capitals first) as in the release."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """The labels of generalised zero-shot evaluation: the seen ones, then the unseen ones."""
        return self.seen + self.unseen


def vocabulary(train: Records | None, test: Records, test_zsl: Records | None) -> Vocabulary:
    """Seen and unseen labels of a data set.

    Args:
        train: its classes are the seen labels; None, for evaluation only: the classes of `test` that
            `test_zsl` has not.
        test: images with labels of both kinds.
        test_zsl: its classes are the unseen labels; None: the classes of `test` that `train` has not.

    Returns:
        Two disjoint parts, both among the classes of `test`, whose further classes are in neither.

    Raises:
        DataError: if a part is empty, the parts overlap, `test` lacks a label, or `train` and `test_zsl`
            are both None.
    """
    if test_zsl is not None:
        unseen = set(test_zsl.classes)
    elif train is not None:
        unseen = set(test.classes) - set(train.classes)
    else:
        raise DataError("the unseen labels are known from DATASETS.TRAIN or from DATASETS.TEST_ZSL: set one of them")
    seen = set(train.classes) if train is not None else set(test.classes) - unseen
    # Where a list is missing, its labels are what the other one leaves of the test list.
    source, source_zsl = (test.source if records is None else records.source for records in (train, test_zsl))
    if not unseen:
        raise DataError(
            f"no unseen labels: every class of {test.source} is also one of {source}; choose some with "
            "DATASETS.UNSEEN or DATASETS.CHOOSE"
        )
    if not seen:
        raise DataError(f"no seen labels: every class of {test.source} is also one of {source_zsl}")
    if seen & unseen:
        raise DataError(f"{first_few(seen & unseen)} in {source} and in {source_zsl}: seen or unseen?")
    if lacking := (seen | unseen) - set(test.classes):
        raise DataError(
            f"{first_few(lacking)} not among the classes of {test.source}, which has to know every label unless "
            "DATASETS.UNSEEN or DATASETS.CHOOSE decides"
        )
    return Vocabulary(tuple(sorted(seen)), tuple(sorted(unseen)))


def restrict(records: Records, names: Sequence[str], *, drop_empty: bool) -> Records:
    """The records with the labels in `names` only.

    Args:
        records: any.
        names: the labels to keep; they become the classes.
        drop_empty: leave out images without any of them. With the unseen labels this gives the images
            of zero-shot evaluation.
    """
    wanted = frozenset(names)

    among = alike(lambda row: tuple(label for label in row if label in wanted))
    labels, unknown, hidden = (tuple(map(among, rows)) for rows in (records.labels, records.unknown, records.hidden))
    kept = records._replace(labels=labels, unknown=unknown, hidden=hidden, classes=tuple(names))
    return kept.rows(i for i, row in enumerate(labels) if row) if drop_empty else kept


def images_without(records: Records, names: Collection[str]) -> Records:
    """The images that have none of the labels in `names`, with all their labels."""
    avoided = frozenset(names)
    return records.rows(i for i, row in enumerate(records.labels) if avoided.isdisjoint(row))


def most_frequent(records: Records, count: int) -> tuple[str, ...]:
    """The labels that most images have, most frequent first; equal ones in the order of the classes."""
    images = dict.fromkeys(records.classes, 0)
    for row in records.labels:
        for label in row:
            images[label] += 1
    return tuple(sorted(records.classes, key=lambda label: -images[label])[:count])


def known(records: Records, names: Sequence[str]) -> Tensor | None:
    """Where it is known whether an image has a label: (I, C) bool; None where all of it is."""
    rows, cols = _places(records.unknown, names)
    if not len(rows):
        return None
    mask = torch.ones(len(records.images), len(names), dtype=torch.bool)
    mask[rows, cols] = False
    return mask


def targets(records: Records, names: Sequence[str]) -> Tensor:
    """Multi-hot targets (I, C), uint8: 1 where image i has label `names[c]`, a label not in `names` has no column."""
    hot = torch.zeros(len(records.images), len(names), dtype=torch.uint8)
    rows, cols = _places(records.labels, names)
    hot[rows, cols] = 1
    return hot


def _places(labels: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the labels of every image, as far as they are among `names`."""
    columns = {name: c for c, name in enumerate(names)}
    places = {row: [columns[label] for label in row if label in columns] for row in set(map(tuple, labels))}
    counts = np.fromiter((len(places[tuple(row)]) for row in labels), dtype=np.int64, count=len(labels))
    cols = np.fromiter(chain.from_iterable(places[tuple(row)] for row in labels), np.int64, count=counts.sum())
    return torch.from_numpy(np.repeat(np.arange(len(labels)), counts)), torch.from_numpy(cols)
