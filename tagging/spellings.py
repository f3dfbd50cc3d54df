"""The labels that a user asks for, with further spellings of each: text, a list in a file, or a file of labels."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.formats.text import read_text
from datasets.labels import read_labels
from datasets.records import DataError, MissingFileError

__all__ = ["Spellings", "read_spellings", "spelt_alike"]


class Spellings(NamedTuple):
    """What is asked for; C spellings of at most as many labels."""

    names: tuple[str, ...]  # C, no two alike
    labels: tuple[str, ...]  # C, the label that each stands for
    texts: Mapping[str, str]  # spelling -> text that is encoded in place of the template filled with it


def spelt_alike(labels: Sequence[str]) -> Spellings:
    """Labels that are asked for by their own name only."""
    return Spellings(tuple(labels), tuple(labels), {})


def read_spellings(given: str, template: str) -> Spellings:
    """The labels of a command line.

    Args:
        given: names between commas; a .txt file with a name a line; or a .json file as `datasets.labels` reads it,
            whose synonyms are further spellings of their label.
        template: such as "A photo of a {}.", which the names of a .json file are put into.

    Raises:
        MissingFileError: if it ends in .txt or .json and is no file.
        DataError: if there are no labels, or two that CLIP cannot tell apart; if the file is not in its format.
    """
    suffix = Path(given).suffix.lower()
    if suffix not in (".txt", ".json"):
        return _checked(spelt_alike(_words(given.replace("\n", ",").split(","))), "--labels")
    path = Path(given)
    if not path.is_file():
        raise MissingFileError(
            f"no file {given}: labels are names between commas, a .txt with a name a line, or a .json of labels"
        )
    if suffix == ".txt":
        return _checked(spelt_alike(_words(_lines(path))), given)
    notes = read_labels(path, template)
    labels = [label for label in json.loads(read_text(path)) if label in notes.labels]  # in the order of the file
    names = [*labels, *notes.synonyms]
    spellings = Spellings(tuple(names), (*labels, *notes.synonyms.values()), notes.texts)
    return _checked(spellings, given)


def _words(texts: Iterable[str]) -> list[str]:
    """The names in texts, without blanks around them."""
    return [" ".join(text.split()) for text in texts if text.strip()]


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).split("\n")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _checked(spellings: Spellings, source: str) -> Spellings:
    """The same, if there are labels and CLIP, which reads small letters and single blanks, can tell them apart."""
    if not spellings.names:
        raise DataError(f"{source}: there is no label in it")
    seen: dict[str, str] = {}
    for name in spellings.names:
        if "\n" in name or "\r" in name or "\0" in name:
            raise DataError(f"{source}: the label {name!r} has a line break or a zero byte in it")
        text = " ".join(spellings.texts.get(name, name).lower().split())
        if text in seen:
            same = name == seen[text]
            raise DataError(
                f"{source}: the label {name!r} is listed twice" if same else
                f"{source}: {seen[text]!r} and {name!r} are the same to CLIP: name one of them"
            )  # fmt: skip
        seen[text] = name
    return spellings
