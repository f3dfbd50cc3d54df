"""Running several methods on images under several label lists, and measuring what they say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from engine.broken import warn_of_broken_images
from engine.evaluators import TASKS, Evaluator
from engine.results import Result
from parallel import from_first, gathered, is_first, world_size

__all__ = ["Row", "behind", "evaluate", "find", "rows_of", "run_methods"]


class Row(NamedTuple):
    """A method as a row of the results, with weights of its own or averaged ones."""

    name: str
    encode: Callable[[Sequence[str]], Any]  # label names -> what `run` takes as its labels
    run: Callable[[Tensor, Any], Any]  # images (B, 3, H, W) and those -> what an evaluator takes
    weights: Callable[[], AbstractContextManager] = nullcontext  # entered around the forward pass


class Asked(Protocol):
    """Images and the labels that they are asked for: ZSL or GZSL."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def task(self) -> str:
        """A key of `TASKS`."""

    @property
    def loader(self) -> Iterable:
        """Batches with images, and what the task's evaluator compares with."""


@torch.no_grad()
def run_methods(
    methods: Sequence[Row], protocol: Asked, *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True,
) -> dict[str, Evaluator]:  # fmt: skip
    """An evaluator of every method that has seen every image; labels are encoded and images read once.

    Each of several processes takes its share of the batches; the evaluators of the first have seen all of them then.
    """
    labels: dict[str, Any] = {}
    evaluators = {method.name: TASKS[protocol.task](protocol.labels) for method in methods}
    bar = tqdm(protocol.loader, protocol.name, disable=not (progress_bar and is_first()), unit="batch", leave=False)
    with bar, torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch in bar:
            pixels = batch.images.to(device, non_blocking=True)
            for method in methods:
                with method.weights():
                    if method.name not in labels:
                        with torch.autocast(device.type, enabled=False):  # once, and all scores rest on it
                            labels[method.name] = method.encode(protocol.labels)
                    output = method.run(pixels, labels[method.name])
                evaluators[method.name].add(output, batch)
    warn_of_broken_images(protocol.loader, protocol.name)
    for evaluator in evaluators.values() if world_size() > 1 else ():
        evaluator.merge((gathered(evaluator) or [])[1:])
    return evaluators


def evaluate(
    methods: Sequence[Row], protocols: Sequence[Asked], *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True, keep: Callable[[str, str, Any], None] | None = None,
) -> list[Result]:  # fmt: skip
    """The metrics of every method under every protocol, in their order, method by method; the same in all processes.

    Args:
        methods: rows; modules behind them are in evaluation mode.
        protocols: label lists with their images.
        device: where images go.
        autocast: dtype of mixed precision; None for float32.
        progress_bar: shown on stderr.
        keep: called with method, protocol and evaluator of each combination, in the first process.
    """
    results = {}
    for protocol in protocols:
        evaluators = run_methods(methods, protocol, device=device, autocast=autocast, progress_bar=progress_bar)
        for name, evaluator in evaluators.items():
            if keep is not None and is_first():
                keep(name, protocol.name, evaluator)
            results[name, protocol.name] = Result(name, protocol.name, from_first(evaluator.metrics), protocol.labels)
    return [results[method.name, protocol.name] for method in methods for protocol in protocols]


def rows_of(*methods: Any, ema: Any = None) -> list[Row]:
    """The rows of some methods under their titles, and of the last one with averaged weights where there are any.

    Args:
        methods: in evaluation mode; each has `title`, `encode_labels` and a forward pass whose output has `scores`.
        ema: has `applied()`, a context in which the last method computes with the averages.
    """
    rows = [Row(method.title, method.encode_labels, method) for method in methods]
    return rows if ema is None else [*rows, rows[-1]._replace(name=f"{rows[-1].name} (EMA)", weights=ema.applied)]


def find(results: Sequence[Result], method: str, protocol: str) -> Mapping[str, float]:
    """The summary of one combination.

    Raises:
        KeyError: if it was not evaluated.
    """
    for result in results:
        if (result.method, result.protocol) == (method, protocol):
            return result.metrics.summary
    raise KeyError(f"{method}, {protocol}")


def behind(results: Sequence[Result], method: str, baseline: str) -> str:
    """Where a method is below another one, in F1@3 or mAP of any protocol; "" where it is not."""
    said = []
    for protocol in dict.fromkeys(result.protocol for result in results if result.method == method):
        ours, theirs = find(results, method, protocol), find(results, baseline, protocol)
        said += [
            f"{protocol} {key} {ours[key]:.1f}, not {theirs[key]:.1f}"
            for key in ("F1@3", "mAP")
            if key in ours and key in theirs and ours[key] < theirs[key]
        ]
    return f"{method} is below {baseline}: {'; '.join(said)}" if said else ""
