"""Scoring images by several methods under several label lists."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine.metrics import measure
from engine.results import Result

__all__ = ["Method", "Protocol", "Scored", "evaluate", "find", "score_images"]


class Method(NamedTuple):
    """A row of the results."""

    name: str
    encode: Callable[[Sequence[str]], Any]  # label names -> what `score` takes as its labels
    score: Callable[[Tensor, Any], Tensor]  # images (B, 3, H, W) and those -> scores (B, C)
    weights: Callable[[], AbstractContextManager] = nullcontext  # entered around the scoring


class Protocol(NamedTuple):
    """A column group of the results: images and the labels that they are asked for."""

    name: str  # ZSL or GZSL
    labels: tuple[str, ...]
    loader: Iterable  # batches with images, targets (B, C) in the order of `labels`, and paths


class Scored(NamedTuple):
    """A method's scores on the images of a protocol."""

    scores: np.ndarray  # (I, C) float32
    targets: np.ndarray  # (I, C) uint8
    names: tuple[str, ...]
    images: tuple[str, ...]


@torch.no_grad()
def score_images(
    method: Method, protocol: Protocol, *, device: torch.device, autocast: torch.dtype | None, progress_bar: bool = True
) -> Scored:
    """The method's scores for every image of the protocol; labels are encoded once."""
    scores, targets, images = [], [], []
    bar = tqdm(protocol.loader, f"{method.name}, {protocol.name}", disable=not progress_bar, unit="batch", leave=False)
    with method.weights(), torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        labels = method.encode(protocol.labels)
        for batch in bar:
            found = method.score(batch.images.to(device, non_blocking=True), labels)
            scores.append(found.float().cpu().numpy())  # host-device sync
            targets.append(batch.targets.numpy().astype(np.uint8))
            images.extend(batch.paths)
    return Scored(np.concatenate(scores), np.concatenate(targets), protocol.labels, tuple(images))


def evaluate(
    methods: Sequence[Method], protocols: Sequence[Protocol], *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True, keep: Callable[[Method, Protocol, Scored], None] | None = None,
) -> list[Result]:  # fmt: skip
    """The metrics of every method under every protocol.

    Args:
        methods: rows; modules behind them are in evaluation mode.
        protocols: label lists with their images.
        device: where images go.
        autocast: dtype of mixed precision; None for float32.
        progress_bar: shown on stderr.
        keep: called with the raw scores of each combination.
    """
    results = []
    for method in methods:
        for protocol in protocols:
            scored = score_images(method, protocol, device=device, autocast=autocast, progress_bar=progress_bar)
            if keep is not None:
                keep(method, protocol, scored)
            metrics = measure(scored.scores, scored.targets)
            results.append(Result(method.name, protocol.name, metrics, protocol.labels))
    return results


def find(results: Sequence[Result], method: str, protocol: str) -> Mapping[str, float]:
    """The summary of one combination.

    Raises:
        KeyError: if it was not evaluated.
    """
    for result in results:
        if (result.method, result.protocol) == (method, protocol):
            return result.metrics.summary
    raise KeyError(f"{method}, {protocol}")
