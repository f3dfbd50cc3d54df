"""What a task measures: an evaluator sees the outputs of one method on the images of one protocol.

To add a task, write a class with the two methods of `Evaluator`, enter it into `TASKS` under a name, and give that
name to the protocols (`datasets.Protocol.task`) whose batches hold what it compares with.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.metrics import Metrics, measure

__all__ = ["TASKS", "Evaluator", "MultiLabel", "Scored"]


class Evaluator(Protocol):
    """Made with the labels that are asked for."""

    def add(self, output: Any, batch: Any) -> None:
        """Takes in what a method says of a batch; nothing of it may be kept on the device."""

    def metrics(self) -> Metrics:
        """The quality on all batches."""


class Scored(NamedTuple):
    """A method's scores on the images of a protocol."""

    scores: np.ndarray  # (I, C) float32
    targets: np.ndarray  # (I, C) uint8
    names: tuple[str, ...]
    images: tuple[str, ...]


class MultiLabel:
    """Which labels are present: needs `scores` (B, C) of an output, `targets` (B, C) and `paths` of a batch."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._scores: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._images: list[str] = []

    def add(self, output: Any, batch: Any) -> None:
        """Takes in the scores of a batch."""
        self._scores.append(output.scores.float().cpu().numpy())  # host-device sync
        self._targets.append(batch.targets.numpy().astype(np.uint8))
        self._images.extend(batch.paths)

    def scored(self) -> Scored:
        """Scores and targets of all images, in the order of the batches."""
        scores, targets = np.concatenate(self._scores), np.concatenate(self._targets)
        return Scored(scores, targets, self._names, tuple(self._images))

    def metrics(self) -> Metrics:
        """P, R and F1 of the top k, their class means, and mAP; see `engine.metrics`."""
        scored = self.scored()
        return measure(scored.scores, scored.targets)


TASKS: dict[str, Callable[[Sequence[str]], Evaluator]] = {"multi-label": MultiLabel}
