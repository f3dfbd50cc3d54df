"""Predictions as lines of a table on a terminal."""

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TextIO

from tqdm import tqdm

from tagging.predictor import Prediction

__all__ = ["Printed", "Table"]

GAP = "  "
LONGEST = 0.4  # of a line, that the names of pictures may take


class Table:
    """Two columns: a picture, and its labels with their probabilities.

    Args:
        pictures: all that will have a row.
        width: of a line in characters, in which long names lose their beginning and labels are wrapped; None: a row is
            one line of any length.
    """

    def __init__(self, pictures: Sequence[str], width: int | None) -> None:
        longest = max([columns(picture) for picture in pictures] + [len("picture")])
        self._first = longest if width is None else min(longest, max(int(width * LONGEST), len("picture")))
        self._rest = None if width is None else max(width - self._first - len(GAP), 20)

    def head(self) -> list[str]:
        """The lines above the rows."""
        return [f"{_padded('picture', self._first)}{GAP}labels", f"{'-' * self._first}{GAP}{'-' * len('labels')}"]

    def rows(self, prediction: Prediction) -> Iterator[str]:
        """The lines of a picture."""
        labels = [f"{k}\u00a0{v:.2f}" for k, v in zip(prediction.labels, prediction.probabilities, strict=True)]
        text = ", ".join(label.replace(" ", "\u00a0") for label in labels) or "-"  # a label stays on one line
        lines = [text] if self._rest is None else textwrap.wrap(text, self._rest, break_on_hyphens=False)
        for number, line in enumerate(lines):
            name = _shortened(prediction.picture, self._first) if number == 0 else ""
            yield f"{_padded(name, self._first)}{GAP}{line}".replace("\u00a0", " ")


class Printed:
    """A table that is printed as it grows, in place of an output to files; a progress bar steps aside for it.

    Args:
        table: what is printed.
        stream: where to.
    """

    done: frozenset[str] = frozenset()

    def __init__(self, table: Table, stream: TextIO) -> None:
        self._table, self._stream, self._begun = table, stream, False

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Prints the rows."""
        lines = self._table.head() if predictions and not self._begun else []
        self._begun = self._begun or bool(predictions)
        for prediction in predictions:
            lines += self._table.rows(prediction)
        if lines:
            tqdm.write("\n".join(lines), file=self._stream)

    def finish(self) -> None:
        """Sends off what is left, so that a reader who has gone is noticed here."""
        self._stream.flush()


def columns(text: str) -> int:
    """Characters of a terminal that the text takes; those of East Asian scripts take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not unicodedata.combining(c))


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _shortened(text: str, width: int) -> str:
    """The end of it, which tells files apart."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 1:
        text = text[1:]
    return f"…{text}"
