"""The lists of an open-vocabulary benchmark, cut from official annotations by the paper's rule."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from datasets.records import NOTHING, DataError, Records, some
from datasets.splits import restrict

__all__ = ["Lists", "most_frequent", "open_vocabulary", "training_list"]


class Lists(NamedTuple):
    """What a benchmark is trained and tested on.

    The classes of `train` are the seen labels, those of `test` the seen ones and then the unseen ones, those of
    `test_zsl` the unseen ones; `val`, if the download has one, is like `test`. `origin` says where the lists
    come from; `exact` in it is whether test images and labels are those of the paper as far as is known.
    """

    train: Records
    test: Records
    test_zsl: Records
    val: Records | None
    origin: Mapping[str, Any]
    notes: tuple[str, ...]


def open_vocabulary(
    train: Records,
    test: Records,
    seen: Sequence[str],
    unseen: Sequence[str],
    *,
    origin: Mapping[str, Any],
    val: Records | None = None,
    keep_empty: bool = False,
    released: Mapping[str, Records] = NOTHING,
    notes: Sequence[str] = (),
) -> Lists:
    """The paper's lists (its Appendix B and Table 8).

    Training images have at least one seen label and no unseen one. Test images have at least one label, those of
    the ZSL list at least one unseen label.

    Args:
        train: all official training images with all their labels; without the unseen labels among its classes,
            no image is left out for having one (NUS-WIDE).
        test: all test images with all their labels.
        seen: the seen labels.
        unseen: the unseen labels.
        origin: what to write into the lists.
        val: the official validation images, if there are.
        keep_empty: keep test images without a label in both test lists (LESA's protocol).
        released: the authors' own lists, by the names in `Lists`; they take the place of ours as they are.
        notes: further notes.

    Raises:
        DataError: if a label is in both parts or in neither list of classes, or a list would be empty.
    """
    if both := set(seen) & set(unseen):
        raise DataError(f"{some(both)} seen and unseen at once")
    names = (*seen, *unseen)
    for records in (train, test):
        if lacking := set(names) - set(records.classes) - (set(unseen) if records is train else set()):
            raise DataError(f"{records.source} does not know the label {some(lacking)}")
    lists = Lists(
        training_list(train, seen, unseen),
        restrict(test, names, drop_empty=not keep_empty),
        restrict(test, unseen, drop_empty=not keep_empty),
        None if val is None else restrict(val, names, drop_empty=True),
        origin,
        (*notes, *_losses(train, test, seen, unseen, keep_empty)),
    )
    lists = lists._replace(**released)
    for name in ("train", "test", "test_zsl"):
        if not getattr(lists, name).images:
            raise DataError(f"the {name} list of {train.source} would be empty")
    return lists


def training_list(records: Records, seen: Sequence[str], unseen: Collection[str]) -> Records:
    """The images with at least one seen label and no unseen one, with their seen labels."""
    avoided = set(unseen)
    kept = [i for i, row in enumerate(records.labels) if avoided.isdisjoint(row)]
    rest = records._replace(
        images=tuple(records.images[i] for i in kept), labels=tuple(records.labels[i] for i in kept)
    )
    return restrict(rest, seen, drop_empty=True)


def most_frequent(records: Records, count: int) -> tuple[str, ...]:
    """The labels that most images have, most frequent first; equal ones in the order of the classes."""
    images = dict.fromkeys(records.classes, 0)
    for row in records.labels:
        for label in row:
            images[label] += 1
    return tuple(sorted(records.classes, key=lambda label: -images[label])[:count])


def _losses(train: Records, test: Records, seen: Sequence[str], unseen: Sequence[str], keep_empty: bool) -> list[str]:
    """What the rule leaves out, counted."""
    avoided, wanted = set(unseen), set(seen)
    with_unseen = sum(not avoided.isdisjoint(row) for row in train.labels)
    without = sum(avoided.isdisjoint(row) and wanted.isdisjoint(row) for row in train.labels)
    reasons = f"{without:,} have no seen label"
    if not avoided.isdisjoint(train.classes):
        reasons = f"{with_unseen:,} have an unseen label and {without:,} no seen one"
    empty = sum((avoided | wanted).isdisjoint(row) for row in test.labels)
    return [
        f"of {len(train.images):,} training images, {reasons}: left out",
        f"of {len(test.images):,} test images, {empty:,} have no label: {'kept' if keep_empty else 'left out'}",
    ]
