"""Annotations in memory: which images there are and which labels each has."""

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from errors import UserError
from files import is_writable

__all__ = ["DataError", "Entry", "MissingFileError", "Records", "alike", "collect", "first_few", "notes_of"]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class DataError(UserError, ValueError):
    """A data set that cannot be used as it is; the message is one line and says what to change."""


class MissingFileError(DataError):
    """A file that is not there."""


class Records(NamedTuple):
    """The images of one list and their labels.

    `images` are paths as they stand in the file, or references such as `shapes:test/17`; each occurs once.
    `labels[i]` are the labels of `images[i]`, each once and all from `classes`. `source` is for messages,
    `notes` says in a line each what reading merged or left out, `origin` is what the file says of itself.
    `unknown[i]` are labels of which the file does not say whether `images[i]` has them; empty where all is known.
    `hidden[i]` are labels that training is not to be told of (`datasets.thinning`); empty where it is told all.
    """

    images: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    origin: Mapping[str, Any] = NOTHING
    unknown: tuple[tuple[str, ...], ...] = ()
    hidden: tuple[tuple[str, ...], ...] = ()

    def rows(self, chosen: Iterable[int]) -> "Records":
        """The images at these positions, in this order, with all their labels."""
        chosen = tuple(chosen)
        return self._replace(
            images=tuple(self.images[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            unknown=tuple(self.unknown[i] for i in chosen if self.unknown),
            hidden=tuple(self.hidden[i] for i in chosen if self.hidden),
        )


class Entry(NamedTuple):
    """One mention of an image: `where` it stands (file and line, for messages), its path, its labels.

    `unknown` are labels that it may have or not.
    """

    where: str
    image: str
    labels: Sequence[str]
    unknown: Sequence[str] = ()


def alike(change: Callable[[Sequence[str]], tuple[str, ...]]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """The function of an image's labels, computed once for all images that have the same: a million have few kinds."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def changed(labels: Sequence[str]) -> tuple[str, ...]:
        row = tuple(labels)
        if row not in known:
            known[row] = change(row)
        return known[row]

    return changed


def collect(
    entries: Iterable[Entry],
    source: str,
    *,
    classes: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    origin: Mapping[str, Any] = NOTHING,
) -> Records:
    """Records in the order of the entries, after every check that needs no image.

    Repeated labels are kept once, in order of first mention; so is an image that is listed again with the same
    labels, and a note counts those. Labels are brought to the composed normal form of Unicode (NFC).

    Args:
        entries: what was read.
        source: the file or folder, for messages.
        classes: the labels that may occur, in the order to keep; None: those that do, in ASCII order.
        notes: further notes.
        origin: what the file says of itself.

    Raises:
        DataError: naming the place, for a label that is not among `classes`, or an image that is listed before with
            other labels; or if there are no classes, one is listed twice, or one is no name.
    """
    known = None if classes is None else _ordered(classes, source)
    first: dict[str, Entry] = {}
    composed = alike(_composed)
    again = 0
    for entry in entries:
        labels, open_questions = composed(entry.labels), composed(entry.unknown)
        unknown = [label for label in labels if known is not None and label not in known]
        if unknown:
            raise DataError(f"{entry.where}: label {unknown[0]!r} of {entry.image!r} is not among the classes")
        entry = Entry(entry.where, entry.image, labels, open_questions)
        before = first.setdefault(posixpath.normpath(entry.image), entry)
        if before is entry:
            continue
        if (set(before.labels), set(before.unknown)) != (set(labels), set(open_questions)):
            way_out = "list an image once, with all its labels"
            raise DataError(
                f"{entry.where}: {entry.image!r} is listed before with other labels, in {before.where}: {way_out}"
            )
        again += before.where != entry.where
    rows = tuple(tuple(entry.labels) for entry in first.values())  # the tuples themselves, not copies
    if known is None and not any(rows):
        raise DataError(f"{source}: no image has a label")
    if known is None:
        known = _ordered(sorted({label for row in set(rows) for label in row}), source)
    if again:
        notes = (*notes, f"{again:,} repeated mentions of images with the same labels are counted once")
    images = tuple(entry.image for entry in first.values())
    not_known = tuple(tuple(entry.unknown) for entry in first.values())
    return Records(images, rows, tuple(known), source, tuple(notes), origin, not_known if any(not_known) else ())


def _composed(labels: Iterable[str]) -> tuple[str, ...]:
    """The labels in the composed normal form of Unicode, each once."""
    return tuple(dict.fromkeys(unicodedata.normalize("NFC", label) for label in labels))


def _ordered(names: Sequence[Any], source: str) -> dict[str, None]:
    """The class names as an ordered set."""
    if not names:
        raise DataError(f"{source}: the list of classes is empty")
    classes: dict[str, None] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{source}: classes[{i}] is {name!r}, not a name")
        if not is_writable(name):
            raise DataError(f"{source}: classes[{i}]: {name!r} holds half of a character, which no file can hold")
        name = unicodedata.normalize("NFC", name)
        if name in classes:
            raise DataError(f"{source}: classes[{i}]: {name!r} is listed twice")
        classes[name] = None
    return classes


def notes_of(lists: Iterable[Records]) -> tuple[str, ...]:
    """What reading the lists merged or left out, with the names of their files."""
    return tuple(f"{records.source}: {note}" for records in lists for note in records.notes)


def first_few(names: Iterable[str]) -> str:
    """The first few of the names, in ASCII order, and how many there are, for messages."""
    ordered = sorted(names)
    first = ", ".join(repr(name) for name in ordered[:3])
    return first if len(ordered) <= 3 else f"{first} and {len(ordered) - 3:,} more"
