"""Many pictures to the labels of each: batches are read ahead by threads, what cannot be read is set aside.

B pictures, C spellings, K labels found, regions on a grid of h x w.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.records import DataError
from tagging.calibration import CalibrationError
from tagging.inputs import require_readable_name
from tagging.pictures import Encoded, Preparation
from tagging.portable import TaggerError
from tagging.spellings import Spellings
from tagging.tagger import Tagger

__all__ = ["THREADS", "Batch", "Prediction", "Predictor", "Unreadable", "threshold_of"]

THREADS = min(8, os.cpu_count() or 1)  # that read pictures


class Prediction(NamedTuple):
    """A picture with its labels, the most probable first."""

    picture: str
    labels: tuple[str, ...]  # K
    probabilities: tuple[float, ...]  # K; or scores
    maps: Tensor | None = None  # (K, h, w), in [0, probability]


class Unreadable(NamedTuple):
    """A picture without labels."""

    picture: str
    why: str  # names it


class Batch(NamedTuple):
    """What became of some pictures."""

    predictions: list[Prediction]
    unreadable: list[str]  # why, one for each; names the picture


class Predictor:
    """A tagger that is asked for the same labels of many pictures.

    A label is as probable as its most probable spelling.

    Args:
        tagger: what answers.
        spellings: what is asked for.
        score: "probability" or "paper", see `Tagger.tag`.
        threshold: see `threshold_of`; None: every label passes.
        top: at most so many labels a picture; None: all that pass.
        maps: whether predictions have them.

    Raises:
        TaggerError: if there are no maps of this score.
        CalibrationError: if there is no such threshold.
        TextError: if a label is longer than CLIP's context.
    """

    def __init__(
        self, tagger: Tagger, spellings: Spellings, *, score: str = "probability", threshold: float | str | None = None,
        top: int | None = None, maps: bool = False,
    ) -> None:  # fmt: skip
        if maps and score == "paper":
            raise TaggerError("maps belong to probabilities: leave out --maps, or --score paper")
        if isinstance(threshold, str) and score == "paper":
            raise CalibrationError(f"the threshold {threshold!r} is one of probabilities: give a number, or --top")
        self._tagger, self._labels, self._top, self._maps = tagger, spellings.labels, top, maps
        self._cuts = [-math.inf] * len(spellings.names)  # scores of some methods are negative
        if isinstance(threshold, float | int):
            self._cuts = [float(threshold)] * len(spellings.names)
        elif threshold is not None:
            names = tuple(dict.fromkeys(spellings.labels))
            cuts = dict(zip(names, tagger.thresholds(names, threshold), strict=True))
            self._cuts = [cuts[label] for label in spellings.labels]
        self._asked = self._encoded = None
        if score == "paper":
            self._encoded = tagger.method.encode_labels(spellings.names)
        else:
            self._asked = tagger.labels(spellings.names, spellings.texts)

    def batches(self, pictures: Sequence[str], size: int) -> Iterator[Batch]:
        """What becomes of the pictures, `size` at a time."""
        for some in self.answers(zip(pictures, pictures, strict=True), size):
            yield Batch(
                [one for one in some if isinstance(one, Prediction)],
                [one.why for one in some if isinstance(one, Unreadable)],
            )

    def answers(
        self, pictures: Iterable[tuple[str, str | Encoded | DataError]], size: int, *, threads: int = THREADS
    ) -> Iterator[list[Prediction | Unreadable]]:  # fmt: skip
        """What becomes of each picture, in order, `size` at a time.

        Args:
            pictures: what to call each, and where it is or why there is none; taken two batches at a time.
            size: pictures that are computed together.
            threads: that read pictures.
        """
        for some in _read_ahead(pictures, self._tagger.preparation, size, threads):
            good = [(name, one) for name, one in some if isinstance(one, Tensor)]
            found = iter(self._predictions([name for name, _ in good], [one for _, one in good]) if good else [])
            yield [Unreadable(name, str(one)) if isinstance(one, DataError) else next(found) for name, one in some]

    def _predictions(self, pictures: list[str], prepared: list[Tensor]) -> list[Prediction]:
        pixels = torch.stack(prepared).to(self._tagger.device)
        maps = None
        if self._asked is None:
            scores = self._tagger.published(pixels, self._encoded).scores
        else:
            scores, maps = self._tagger.ask(self._tagger.gallery(pixels), self._asked, maps=self._maps)
        charts = [None] * len(pictures) if maps is None else maps.cpu()
        return [
            self._picked(picture, row, chart)
            for picture, row, chart in zip(pictures, scores.float().cpu(), charts, strict=True)
        ]

    def _picked(self, picture: str, row: Tensor, maps: Tensor | None) -> Prediction:
        """The labels that pass, of scores (C,) and maps (C, h, w) of spellings."""
        values = row.tolist()
        best: dict[str, int] = {}  # label -> its most probable spelling
        for k in row.argsort(descending=True, stable=True).tolist():
            best.setdefault(self._labels[k], k)
        kept = [(label, k) for label, k in best.items() if values[k] >= self._cuts[k]][: self._top]
        places = [k for _, k in kept]
        return Prediction(
            picture, tuple(label for label, _ in kept), tuple(values[k] for k in places),
            None if maps is None else maps[places],
        )  # fmt: skip


def threshold_of(text: str) -> float | str:
    """The threshold that a text names: a number in [0, 1], or what `Calibration.threshold` takes besides.

    Raises:
        CalibrationError: if it is a number outside.
    """
    try:
        number = float(text)
    except ValueError:
        return text
    if not 0 <= number <= 1:
        raise CalibrationError(f"the threshold {text} is none: a number from 0 to 1, best, or precision=0.9")
    return number


def _read_ahead(
    pictures: Iterable[tuple[str, str | Encoded | DataError]], preparation: Preparation, size: int, threads: int
) -> Iterator[list[tuple[str, Tensor | DataError]]]:
    """Names and prepared pictures, `size` at a time; while one batch is worked on, the next one is read."""
    pool, source = ThreadPoolExecutor(threads), iter(pictures)
    try:
        ahead = [(name, pool.submit(_read, one, preparation)) for name, one in islice(source, size)]
        while ahead:
            current = ahead
            ahead = [(name, pool.submit(_read, one, preparation)) for name, one in islice(source, size)]
            yield [(name, future.result()) for name, future in current]
    finally:
        pool.shutdown(cancel_futures=True)


def _read(picture: str | Encoded | DataError, preparation: Preparation) -> Tensor | DataError:
    try:
        if isinstance(picture, DataError):
            return picture
        if isinstance(picture, str):
            require_readable_name(picture)
        return preparation(picture)
    except DataError as error:
        return error
