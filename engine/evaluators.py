"""What a task measures: an evaluator sees the outputs of one method on the images of one protocol.

To add a task, write a class with the three methods of `Evaluator`, enter it into `TASKS` under a name, and give that
name to the protocols (`datasets.Protocol.task`) whose batches hold what it compares with.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from engine.metrics import Metrics, measure
from errors import UserError

__all__ = ["TASKS", "EvaluationError", "Evaluator", "MultiLabel", "Scored"]


class Evaluator(Protocol):
    """Made with the labels that are asked for."""

    def add(self, output: Any, batch: Any) -> None:
        """Takes in what a method says of a batch; nothing of it may be kept on the device."""

    def merge(self, others: Sequence[Any]) -> None:
        """Takes in what evaluators of other processes were given. Where there are several, evaluators are pickled."""

    def metrics(self) -> Metrics:
        """The quality on all batches."""


class EvaluationError(UserError, ValueError):
    """Nothing to measure."""


class Scored(NamedTuple):
    """A method's scores on the images of a protocol."""

    scores: np.ndarray  # (I, C) float32
    targets: np.ndarray  # (I, C) uint8
    names: tuple[str, ...]
    images: tuple[str, ...]


class MultiLabel:
    """Which labels are present: of an output `scores` (B, C), of a batch `targets` (B, C), `paths` and `indices`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._images: list[str] = []
        self._indices: list[np.ndarray] = []

    def add(self, output: Any, batch: Any) -> None:
        """Takes in the scores of a batch."""
        self._scores.append(output.scores.float().cpu().numpy())  # host-device sync
        self._targets.append(batch.targets.numpy().astype(np.uint8))
        self._images.extend(batch.paths)
        self._indices.append(batch.indices.numpy())

    def merge(self, others: Sequence[Self]) -> None:
        """Takes in the scores of other processes."""
        for other in others:
            self._scores += other._scores
            self._targets += other._targets
            self._images += other._images
            self._indices += other._indices

    def scored(self) -> Scored:
        """Scores and targets of all images, in the order of the records.

        Raises:
            EvaluationError: if there are none.
        """
        if not self._scores:
            raise EvaluationError("no image was evaluated: none of them can be read")
        order = np.concatenate(self._indices).argsort(kind="stable")
        scores, targets = np.concatenate(self._scores)[order], np.concatenate(self._targets)[order]
        return Scored(scores, targets, self._names, tuple(self._images[index] for index in order))

    def metrics(self) -> Metrics:
        """P, R and F1 of the top k, their class means, and mAP; see `engine.metrics`."""
        scored = self.scored()
        return measure(scored.scores, scored.targets)


TASKS: dict[str, Callable[[Sequence[str]], Evaluator]] = {"multi-label": MultiLabel}
