"""From annotation lists to what trains, validates and tests."""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets.choice import LabelChoice, choose, named_vocabulary
from datasets.records import DataError, Records, first_few, notes_of
from datasets.shuffle import shuffled
from datasets.splits import Vocabulary, images_without, restrict, vocabulary

__all__ = ["Splits", "compose", "cut", "fingerprint"]

AUTO_SHARE, AUTO_LEAST = 0.1, 20  # of the training images for validation, where nothing is said; images
AT_ONCE = 4096  # entries of a list that become text together


class Splits(NamedTuple):
    """The lists of a training or an evaluation.

    `train` holds seen labels only and no image with an unseen one; None where it is missing and not needed. `val` is
    None if there is none. `test_zsl` is None unless a list of its own was given. `texts` are the texts of labels that
    do not take the template. `notes` says in one line each what was left out.
    """

    vocabulary: Vocabulary
    train: Records | None
    val: Records | None
    test: Records
    test_zsl: Records | None
    texts: Mapping[str, str]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Numbers of images and labels, and the notes, in a line each."""
        lists = {"training": self.train, "validation": self.val, "test": self.test}
        sizes = ", ".join(f"{len(records.images):,} {name}" for name, records in lists.items() if records is not None)
        seen, unseen = (len(part) for part in self.vocabulary)
        return "\n".join([f"data: {sizes} images; {seen} seen and {unseen} unseen labels", *self.notes])


def compose(
    train: Records | None,
    val: Records | None,
    test: Records | None,
    test_zsl: Records | None,
    *,
    choice: LabelChoice,
    val_fraction: float | None,
    test_fraction: float,
    seed: int,
    texts: Mapping[str, str],
    trained_on: Sequence[str] = (),
) -> Splits:
    """The lists, cut and restricted.

    Args:
        train: training images; those of `val` and `test` are cut from it where these are None and a fraction is set.
        val: validation images.
        test: test images of generalised zero-shot evaluation.
        test_zsl: test images of zero-shot evaluation, its classes the unseen labels.
        choice: of the labels.
        val_fraction: of the images of `train`, for validation; None: a tenth where that is AUTO_LEAST images or more.
        test_fraction: of the images of `train`, for testing.
        seed: of the cuts.
        texts: texts of labels, passed on.
        trained_on: seen labels of a checkpoint; without a training list and a choice, those of `test` are seen.

    Raises:
        DataError: naming the key, if the settings contradict each other or a list would be empty.
    """
    if train is None:
        assert test is not None  # whoever does without training images has others to test on
        labels = _untrained_labels(test, test_zsl, choice, trained_on)
        return Splits(labels, None, val, test, test_zsl, texts, test.notes)
    if test is None and not test_fraction:
        raise DataError("DATASETS.TEST is empty: set it to an annotation file, or DATASETS.TEST_FRACTION")
    notes = list(notes_of(_distinct(train, val, test, test_zsl)))
    if val_fraction is None:
        val_fraction = AUTO_SHARE if round(AUTO_SHARE * len(train.images)) >= AUTO_LEAST else 0.0
        if not val and not val_fraction:
            notes.append(
                f"{len(train.images)} images are too few to hold some out for validation, and so for probabilities"
            )
    shares = {"VAL": 0.0 if val else val_fraction, "TEST": 0.0 if test else test_fraction}
    rest, parts = cut(train, shares, seed)
    val, test = val or parts["VAL"], test or parts["TEST"]
    assert test is not None  # its share is not 0 then
    labels = choose(rest, test, test_zsl, choice)
    clean = images_without(rest, labels.unseen)
    if left_out := len(rest.images) - len(clean.images):
        notes.append(
            f"{left_out:,} of {len(rest.images):,} training images have an unseen label and are left out; "
            "DATASETS.CHOOSE, SEEN and UNSEEN say which labels are unseen"
        )
    if left_out and not clean.images:
        raise DataError(f"{train.source}: every training image has an unseen label: choose others, or fewer")
    seen = restrict(clean, labels.seen, drop_empty=False)
    if seen.images and not any(seen.labels):
        raise DataError(f"{train.source}: no training image has a seen label")
    notes += [*_in_neither(rest, labels), *_overlaps(seen, {"validation": val, "test": test})]
    if labels.unseen and not restrict(test, labels.unseen, drop_empty=True).images:
        notes.append("no test image has an unseen label, so there is no ZSL: raise DATASETS.TEST_FRACTION")
    return Splits(labels, seen, val, test, test_zsl, texts, tuple(notes))


def _untrained_labels(
    test: Records, test_zsl: Records | None, choice: LabelChoice, trained_on: Sequence[str]
) -> Vocabulary:
    """Seen and unseen labels where there is no training list."""
    if choice.seen or choice.unseen:
        return named_vocabulary(choice, [test])
    if test_zsl is not None or not trained_on:
        return vocabulary(None, test, test_zsl)
    seen = set(test.classes) & set(trained_on)
    return Vocabulary(tuple(sorted(seen)), tuple(sorted(set(test.classes) - seen)))


def cut(records: Records, shares: Mapping[str, float], seed: int) -> tuple[Records, dict[str, Records | None]]:
    """What is left of a list, and the parts cut from it at random, None for a share of 0.

    Raises:
        DataError: naming the key, if a share is out of range, or a part or the rest would be empty.
    """
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        said = " and ".join(f"DATASETS.{key}_FRACTION {share}" for key, share in shares.items())
        raise DataError(f"{said}: both have to be 0 or more, and to leave images for training")
    below = _below(records.images)
    order = [below[name] for name in shuffled(below, seed)]
    parts: dict[str, Records | None] = {}
    start = 0
    for key, share in shares.items():
        count = round(share * len(order))
        if share and not count:
            raise DataError(f"DATASETS.{key}_FRACTION {share} of {len(order)} images is none: add images or raise it")
        parts[key] = _subset(records, order[start : start + count])._replace(hidden=()) if share else None
        start += count
    if start and start >= len(order):
        raise DataError(f"{records.source}: {len(order)} images leave none for training")
    return (_subset(records, order[start:]) if start else records), parts


def fingerprint(records: Records, asked: Sequence[str] = ()) -> str:
    """SHA-256 of images, their labels and the labels they are asked for; the same when a folder of images moves."""
    parts = [list(_below(records.images)), records.labels, list(asked), *([records.unknown] if records.unknown else [])]
    digest = hashlib.sha256()
    for text in _json_in_pieces(parts):
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _json_in_pieces(lists: Sequence[Sequence[Any]]) -> Iterator[str]:
    """JSON of lists: with many labels that are not known, the whole text would take gigabytes."""
    for i, entries in enumerate(lists):
        yield ", [" if i else "[["
        for start in range(0, len(entries), AT_ONCE):
            text = json.dumps(entries[start : start + AT_ONCE], ensure_ascii=False)
            yield f"{', ' if start else ''}{text[1:-1]}"
        yield "]"
    yield "]"


def _below(images: Sequence[str]) -> dict[str, str]:
    """The images by their names below the folder that absolute paths have in common."""
    if not images or not all(map(os.path.isabs, images)):
        return {image: image for image in images}
    folders = set(map(os.path.dirname, images))
    common = os.path.commonpath(images if len(images) == 1 else folders)  # a few folders hold a million images
    return {_relative(image, common): image for image in images}


def _relative(image: str, folder: str) -> str:
    """`os.path.relpath` for a path that most often is in the folder, which is quicker to see than to compute."""
    normal, start = os.path.normpath(image), os.path.join(folder, "")
    return normal[len(start) :] if normal.startswith(start) else os.path.relpath(image, folder)


def _subset(records: Records, images: Collection[str]) -> Records:
    """Some images, in the order of the list."""
    wanted = set(images)
    return records.rows(i for i, image in enumerate(records.images) if image in wanted)


def _distinct(*lists: Records | None) -> list[Records]:
    """One of the lists for each file."""
    return list({records.source: records for records in lists if records is not None}.values())


def _in_neither(records: Records, labels: Vocabulary) -> list[str]:
    """A note on labels that are neither seen nor unseen."""
    rest = set(records.classes) - set(labels.all)
    mentions = sum(label in rest for row in records.labels for label in row)
    if not mentions:
        return []
    return [f"{records.source}: {first_few(rest)} neither seen nor unseen: {mentions:,} mentions are left out"]


def _overlaps(train: Records, lists: Mapping[str, Records | None]) -> list[str]:
    """Notes on images that train and are evaluated."""
    trained = set(map(os.path.normpath, train.images))
    both = {name: sum(os.path.normpath(i) in trained for i in rec.images) for name, rec in lists.items() if rec}
    return [f"WARNING: {count:,} {name} images are training images too" for name, count in both.items() if count]
