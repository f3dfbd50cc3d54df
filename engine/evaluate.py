"""Scoring images by several methods under several label lists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine.broken import warn_of_broken_images
from engine.metrics import measure
from engine.results import Result

__all__ = ["Row", "Scored", "evaluate", "find", "rows_of", "score_images"]


class Row(NamedTuple):
    """A method as a row of the results, with weights of its own or averaged ones."""

    name: str
    encode: Callable[[Sequence[str]], Any]  # label names -> what `score` takes as its labels
    score: Callable[[Tensor, Any], Tensor]  # images (B, 3, H, W) and those -> scores (B, C)
    weights: Callable[[], AbstractContextManager] = nullcontext  # entered around the scoring


class Asked(Protocol):
    """Images and the labels that they are asked for: ZSL or GZSL."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def loader(self) -> Iterable:
        """Batches with images, targets (B, C) in the order of `labels`, and paths."""


class Scored(NamedTuple):
    """A method's scores on the images of a protocol."""

    scores: np.ndarray  # (I, C) float32
    targets: np.ndarray  # (I, C) uint8
    names: tuple[str, ...]
    images: tuple[str, ...]


@torch.no_grad()
def score_images(
    methods: Sequence[Row], protocol: Asked, *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True,
) -> dict[str, Scored]:  # fmt: skip
    """Every method's scores for every image of the protocol; labels are encoded and images read once."""
    labels: dict[str, Any] = {}
    scores: dict[str, list[np.ndarray]] = {method.name: [] for method in methods}
    targets, images = [], []
    bar = tqdm(protocol.loader, protocol.name, disable=not progress_bar, unit="batch", leave=False)
    with bar, torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch in bar:
            pixels = batch.images.to(device, non_blocking=True)
            for method in methods:
                with method.weights():
                    if method.name not in labels:
                        labels[method.name] = method.encode(protocol.labels)
                    found = method.score(pixels, labels[method.name])
                scores[method.name].append(found.float().cpu().numpy())  # host-device sync
            targets.append(batch.targets.numpy().astype(np.uint8))
            images.extend(batch.paths)
    warn_of_broken_images(protocol.loader, protocol.name)
    return {
        name: Scored(np.concatenate(parts), np.concatenate(targets), protocol.labels, tuple(images))
        for name, parts in scores.items()
    }


def evaluate(
    methods: Sequence[Row], protocols: Sequence[Asked], *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True, keep: Callable[[str, str, Scored], None] | None = None,
) -> list[Result]:  # fmt: skip
    """The metrics of every method under every protocol, in their order, method by method.

    Args:
        methods: rows; modules behind them are in evaluation mode.
        protocols: label lists with their images.
        device: where images go.
        autocast: dtype of mixed precision; None for float32.
        progress_bar: shown on stderr.
        keep: called with method, protocol and raw scores of each combination.
    """
    results = {}
    for protocol in protocols:
        scored = score_images(methods, protocol, device=device, autocast=autocast, progress_bar=progress_bar)
        for name, found in scored.items():
            if keep is not None:
                keep(name, protocol.name, found)
            metrics = measure(found.scores, found.targets)
            results[name, protocol.name] = Result(name, protocol.name, metrics, protocol.labels)
    return [results[method.name, protocol.name] for method in methods for protocol in protocols]


def rows_of(*methods: Any, ema: Any = None) -> list[Row]:
    """The rows of some methods under their titles, and of the last one with averaged weights where there are any.

    Args:
        methods: in evaluation mode; each has `title`, `encode_labels` and a forward pass whose output has `scores`.
        ema: has `applied()`, a context in which the last method computes with the averages.
    """
    rows = [Row(method.title, method.encode_labels, _score(method)) for method in methods]
    return rows if ema is None else [*rows, rows[-1]._replace(name=f"{rows[-1].name} (EMA)", weights=ema.applied)]


def _score(method: Any) -> Callable[[Tensor, Any], Tensor]:
    def score(images: Tensor, labels: Any) -> Tensor:
        return method(images, labels).scores

    return score


def find(results: Sequence[Result], method: str, protocol: str) -> Mapping[str, float]:
    """The summary of one combination.

    Raises:
        KeyError: if it was not evaluated.
    """
    for result in results:
        if (result.method, result.protocol) == (method, protocol):
            return result.metrics.summary
    raise KeyError(f"{method}, {protocol}")
