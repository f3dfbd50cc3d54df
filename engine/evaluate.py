"""Running several methods on images under several label lists, and measuring what they say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from engine.broken import warn_of_broken_images
from engine.evaluators import TASKS, Evaluator
from engine.results import Result
from parallel import from_first, gathered, is_first, world_size

__all__ = ["Row", "behind", "evaluate", "find", "rows_of", "run_methods"]


def _as_it_is(given: Any) -> Any:
    return given


class Row(NamedTuple):
    """A method as a row of the results, with weights of its own or averaged ones.

    Rows with the same `stem` share what it makes of a batch; label lists share what `features` makes of that.
    """

    name: str
    encode: Callable[[Sequence[str]], Any]  # label names -> what `run` takes as its labels
    run: Callable[[Any, Any], Any]  # features of images and those -> what an evaluator takes
    stem: Callable[[Any], Any] = _as_it_is  # images (B, 3, H, W) -> what no training changes
    features: Callable[[Any], Any] = _as_it_is  # that -> what no label changes
    weights: Callable[[], AbstractContextManager] = nullcontext  # entered around all but the stem


class Part(Protocol):
    """Images of one protocol among those of another."""

    @property
    def whole(self) -> str:
        """The name of the other protocol."""

    def of(self, batch: Any) -> tuple[Tensor, Any]:
        """Which rows of a batch of the whole belong to it, (b,) int64, and the batch of these."""


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

    @property
    def part(self) -> Part | None:
        """Where its images are among those of another protocol, which are then seen once for both."""


@torch.no_grad()
def run_methods(
    methods: Sequence[Row], whole: Asked, parts: Sequence[Asked] = (), *, device: torch.device,
    autocast: torch.dtype | None, progress_bar: bool = True,
) -> dict[tuple[str, str], Evaluator]:  # fmt: skip
    """By method and protocol an evaluator that has seen every image; labels are encoded and images seen once.

    Each of several processes takes its share of the batches; the evaluators of the first have seen all of them then.

    Args:
        methods: rows.
        whole: what images are read for.
        parts: protocols of images among those.
        device: where images go.
        autocast: dtype of mixed precision; None for float32.
        progress_bar: shown on stderr.
    """
    protocols = {protocol.name: protocol for protocol in (whole, *parts)}
    labels: dict[tuple[str, str], Any] = {}
    evaluators = {
        (method.name, name): TASKS[protocol.task](protocol.labels)
        for name, protocol in protocols.items()
        for method in methods
    }
    title = " and ".join(sorted(protocols, reverse=True))
    bar = tqdm(whole.loader, title, disable=not (progress_bar and is_first()), unit="batch", leave=False)
    with bar, torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch in bar:
            pixels, stems = batch.images.to(device, non_blocking=True), {}
            shown = {part.name: part.part.of(batch) for part in parts if part.part is not None}
            for method in methods:
                if method.stem not in stems:
                    stems[method.stem] = method.stem(pixels)
                with method.weights():
                    features = method.features(stems[method.stem])
                    for name, protocol in protocols.items():
                        key, (rows, images) = (method.name, name), shown.get(name, (None, batch))
                        if key not in labels:
                            with torch.autocast(device.type, enabled=False):  # once, and all scores rest on it
                                labels[key] = method.encode(protocol.labels)
                        if rows is None or len(rows):
                            evaluators[key].add(method.run(_of_images(features, rows), labels[key]), images)
    warn_of_broken_images(whole.loader, title)
    for evaluator in evaluators.values() if world_size() > 1 else ():
        evaluator.merge((gathered(evaluator) or [])[1:])
    return evaluators


def _of_images(features: Any, rows: Tensor | None) -> Any:
    """The features of some images of a batch, the first dimension of all tensors in them; None: of all."""
    if rows is None:
        return features
    return tree_map_only(Tensor, lambda tensor: tensor[rows.to(tensor.device)], features)


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
    evaluators: dict[tuple[str, str], Evaluator] = {}
    for whole, *parts in _passes(protocols):
        evaluators |= run_methods(methods, whole, parts, device=device, autocast=autocast, progress_bar=progress_bar)
    results = []
    for method in methods:
        for protocol in protocols:
            evaluator = evaluators[method.name, protocol.name]
            if keep is not None and is_first():
                keep(method.name, protocol.name, evaluator)
            results.append(Result(method.name, protocol.name, from_first(evaluator.metrics), protocol.labels))
    return results


def _passes(protocols: Sequence[Asked]) -> list[list[Asked]]:
    """Protocols by the images that are read for them: those of parts of another one behind it."""
    whole = {protocol.name: protocol.part.whole if protocol.part else "" for protocol in protocols}
    alone = [protocol for protocol in protocols if whole[protocol.name] not in whole]
    return [[first, *(part for part in protocols if whole[part.name] == first.name)] for first in alone]


def rows_of(*methods: Any, ema: Any = None) -> list[Row]:
    """The rows of some methods under their titles, and of the last one with averaged weights where there are any.

    Args:
        methods: in evaluation mode; see `model.method.Method`.
        ema: has `applied()`, a context in which the last method computes with the averages.
    """
    rows = [
        Row(method.title, method.encode_labels, method.recognise, method.stem, method.features) for method in methods
    ]
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
