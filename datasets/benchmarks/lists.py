"""The lists of an open-vocabulary benchmark, cut from official annotations by the paper's rule."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from datasets.records import NOTHING, DataError, Records, first_few
from datasets.splits import images_without, restrict

__all__ = ["Lists", "open_vocabulary", "require_distinct"]


class Lists(NamedTuple):
    """What a benchmark is trained and tested on.

    The classes of `train` are the seen labels, those of `test` the seen ones and then the unseen ones, those of
    `test_zsl` the unseen ones, None where no label is unseen; `val`, if there is one, is like `test`. `origin` says
    where the lists come from; `exact` in it is whether test images and labels are those of the paper as far as is
    known.
    """

    train: Records
    test: Records
    test_zsl: Records | None
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
        DataError: if a label is in both parts or in neither list of classes, an image is in training and test, or a
            list would be empty.
    """
    if both := set(seen) & set(unseen):
        raise DataError(f"{first_few(both)} seen and unseen at once")
    names = (*seen, *unseen)
    for records in (train, test):
        if lacking := set(names) - set(records.classes) - (set(unseen) if records is train else set()):
            raise DataError(f"{records.source} does not know the label {first_few(lacking)}")
    losses = [] if "train" in released else [_training_losses(train, seen, unseen)]
    losses += [] if "test" in released else [_test_losses(test, names, keep_empty)]
    lists = Lists(
        restrict(images_without(train, unseen), seen, drop_empty=True),
        restrict(test, names, drop_empty=not keep_empty),
        restrict(test, unseen, drop_empty=not keep_empty),
        None if val is None else restrict(val, names, drop_empty=True),
        origin,
        (*notes, *losses),
    )
    lists = Lists(**{**lists._asdict(), **released})
    require_distinct(lists, train.source)
    return lists


def require_distinct(lists: Lists, source: str) -> None:
    """Refuses lists without images, and images that are in training and in a test.

    Args:
        lists: any.
        source: what they were made of, for messages.

    Raises:
        DataError: naming the list, or the first of the images.
    """
    named = {"train": lists.train, "test": lists.test, "test_zsl": lists.test_zsl}
    there = {name: records for name, records in named.items() if records is not None}
    tests = (image for name, records in there.items() if name != "train" for image in records.images)
    if shared := set(lists.train.images).intersection(tests):
        raise DataError(f"{len(shared):,} images are in the training list and in a test list: {first_few(shared)}")
    for name, records in there.items():
        if not records.images:
            raise DataError(f"the {name} list of {source} would be empty")


def _training_losses(train: Records, seen: Sequence[str], unseen: Sequence[str]) -> str:
    """What the rule leaves out, counted."""
    avoided, wanted = set(unseen), set(seen)
    with_unseen = sum(not avoided.isdisjoint(row) for row in train.labels)
    without_seen = sum(avoided.isdisjoint(row) and wanted.isdisjoint(row) for row in train.labels)
    reasons = f"{without_seen:,} have no seen label"
    if not avoided.isdisjoint(train.classes):
        reasons = f"{with_unseen:,} have an unseen label and {without_seen:,} no seen one"
    return f"of {len(train.images):,} training images, {reasons}: left out"


def _test_losses(test: Records, names: Sequence[str], keep_empty: bool) -> str:
    wanted = set(names)
    empty = sum(wanted.isdisjoint(row) for row in test.labels)
    return f"of {len(test.images):,} test images, {empty:,} have no label: {'kept' if keep_empty else 'left out'}"
