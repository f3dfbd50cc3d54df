"""One epoch of training: forward, loss, backward, step, average, log."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only
from tqdm import tqdm

from engine.broken import warn_of_broken_images
from engine.ema import Ema
from engine.nonfinite import LossWatch
from engine.optim import FUSED, Optimizers
from engine.schedules import Period
from errors import UserError
from parallel import as_one, gathered, is_first, world_size

__all__ = ["SeparateLossError", "Trainer"]


class SeparateLossError(UserError, ValueError):
    """A loss that each process computes for its own images."""


SUMMED, HIGHEST = ("images_per_second",), ("peak_memory_gb",)  # of several processes; of the rest the mean is logged


class Trained(Protocol):
    """What a training step asks of a method, which is a module too."""

    def __call__(self, images: Tensor, labels: Any, targets: Tensor, /) -> Any: ...
    def encode_labels(self, names: Sequence[str], /) -> Any: ...
    def learn(self, stem: Any, labels: Any, targets: Tensor, /) -> Any: ...
    def losses(self, output: Any, targets: Tensor, /) -> dict[str, Tensor]: ...
    def diagnostics(self, output: Any, /) -> dict[str, Tensor]: ...
    def trained_state(self) -> Mapping[str, Tensor]: ...
    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...
    def train(self) -> object: ...
    def begin_epoch(self, epoch: int, /) -> None: ...


@dataclass
class Trainer:
    """What a training step needs.

    Attributes:
        model: a method.
        names: the seen labels, in the order of the targets' columns.
        optimizers: over all trained parameters.
        set_rates: sets the learning rates for a period, an epoch or a step.
        rates_per_step: the rates change in every step; otherwise they are constant within an epoch.
        ema: average to update after every step, if any.
        scaler: of the loss, disabled where the precision needs none.
        device: where batches go.
        autocast: dtype of mixed precision; None for float32 throughout.
        log: called with the values of a log line every `log_period` steps and at the end of an epoch, in the first of
            several processes.
        log_period: in steps.
        skip_nonfinite: leave out a batch whose loss is NaN or infinite, as loss scaling does in the release, or stop.
        progress_bar: shown on stderr.
        step: optimiser steps so far.
        augment: makes normalised images of a batch's images and its `plan`; None where workers have done so.
        cached: whether batches hold what the method's `training_stem` gives in the place of images.
    """

    model: Trained
    names: Sequence[str]
    optimizers: Optimizers
    set_rates: Callable[[Period], None]
    rates_per_step: bool
    ema: Ema | None
    scaler: torch.amp.GradScaler
    device: torch.device
    autocast: torch.dtype | None
    log: Callable[..., None]
    log_period: int
    skip_nonfinite: bool
    progress_bar: bool = True
    step: int = 0
    augment: Callable[[Tensor, Any], Tensor] | None = None
    cached: bool = False
    _buffers: list[Tensor] = field(default_factory=list)  # what a forward pass changes
    _compared: bool = False  # whether the losses of the processes are known to be one
    _meter: "_Meter" = field(default_factory=lambda: _Meter())

    def __post_init__(self) -> None:
        self._watch = LossWatch(skip=self.skip_nonfinite)
        self._forward: Any = _Forward(self.model, self.names, self.device.type, self.autocast, cached=self.cached)
        if world_size() > 1:
            # Statistics of normalisations are the same everywhere by themselves.
            self._forward = DistributedDataParallel(
                self._forward, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def epoch(
        self, epoch: int, loader: Any, first_batch: int = 0, after_step: Callable[[int], None] | None = None
    ) -> None:
        """Trains through one epoch.

        Args:
            epoch: from 1.
            loader: batches with `images`, `targets` and `paths`, positioned at `first_batch` of this epoch; its length
                is the number of batches left.
            first_batch: batches of the epoch that are done already, when a killed run goes on.
            after_step: called with the number of batches done after every step.

        Raises:
            SeparateLossError: if the loss of one of several processes is not that of all.
            NonFiniteLossError: at the first loss that is NaN or infinite if such are not skipped, else at the hundredth
                in a row, or after a whole epoch of several. Such losses update nothing. On a GPU the host looks at them
                when it logs and at the end of the epoch, elsewhere after every step.
        """
        self.model.train()
        self.model.begin_epoch(epoch)
        buffers = dict(self.model.named_buffers())
        self._buffers = [buffers[name] for name in self.model.trained_state() if name in buffers]
        self._watch.begin_epoch()
        begun = self.step
        total = first_batch + len(loader)
        bar = tqdm(
            loader, f"epoch {epoch}", total, initial=first_batch, disable=not (self.progress_bar and is_first()),
            unit="batch",
        )  # fmt: skip
        with bar:  # else an error is printed behind the bar
            for done, batch in enumerate(bar, start=first_batch + 1):
                self.set_rates(Period(epoch, done - 1, total) if self.rates_per_step else Period(epoch, 0, 1))
                loss = self._train_step(batch, epoch)
                if done % self.log_period == 0 or done == total:
                    self.settle()
                    values = _of_all(self._values())
                    if is_first():
                        self.log(epoch=epoch, step=self.step, **values)
                    bar.set_postfix(loss=f"{loss.item():.3f}")
                if after_step is not None:
                    after_step(done)
        self._watch.end_epoch(epoch, self.step - begun, whole=first_batch == 0)
        warn_of_broken_images(loader, "training images")

    def _train_step(self, batch: Any, epoch: int) -> Tensor:
        images = tree_map_only(Tensor, lambda part: part.to(self.device, non_blocking=True), batch.images)
        if self.augment is not None:
            images = self.augment(images, batch.plan)
        targets = batch.targets.to(self.device, non_blocking=True)
        if (known := getattr(batch, "known", None)) is not None:
            targets = targets.masked_fill(~known.to(self.device, non_blocking=True), -1)
        before = [buffer.clone() for buffer in self._buffers]
        with as_one():
            output = self._forward(images, targets)
            losses = self.model.losses(output, targets)
        loss = torch.stack(list(losses.values())).sum()
        self._require_one(loss)
        finite = torch.isfinite(loss.detach())
        self.optimizers.zero_grad()
        self.scaler.scale(loss).backward()
        self.optimizers.step(self.scaler, finite)
        for buffer, value in zip(self._buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, value))
        self._watch.add(loss, epoch=epoch, step=self.step + 1, paths=batch.paths)
        if self.device.type not in FUSED:  # the host has waited already
            self.settle()
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        named = {f"loss_{name}": value for name, value in losses.items()}
        self._meter.add(len(targets), finite, loss=loss, **named, **self.model.diagnostics(output))
        return loss

    def settle(self) -> None:
        """Waits for the losses so far, and says which are not finite; to be called before a checkpoint.

        Raises:
            NonFiniteLossError: as `epoch`.
        """
        self._watch.look()

    def _require_one(self, loss: Tensor) -> None:
        """Refuses, in the first step, a method whose loss is not that of the whole batch in every process."""
        if not self._compared and len(set(map(str, of_each := gathered(loss.item()) or []))) > 1:
            raise SeparateLossError(
                f"the processes have losses of their own, {of_each[0]} and others: train in one process, or reduce the "
                "loss over all of them as model/method.py says"
            )
        self._compared = True

    def _values(self) -> dict[str, float]:
        values = self._meter.read()
        values |= {f"lr_{name}": rate for name, rate in self.optimizers.rates().items()}
        if self._watch.skipped:
            values["skipped_steps"] = self._watch.skipped
        if self.device.type == "cuda":
            values["peak_memory_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        return values


class _Forward(nn.Module):
    """The forward pass of a training step as one module, the labels' included: what gradients are exchanged for."""

    def __init__(
        self, model: Any, names: Sequence[str], device: str, autocast: torch.dtype | None, *, cached: bool
    ) -> None:
        super().__init__()
        self.model, self.names, self.device, self.autocast, self.cached = model, names, device, autocast, cached

    def forward(self, images: Any, targets: Tensor) -> Any:
        says = self.model.learn if self.cached else self.model
        with torch.autocast(self.device, dtype=self.autocast, enabled=self.autocast is not None):
            return says(images, self.model.encode_labels(self.names), targets)


def _of_all(values: dict[str, float]) -> dict[str, float]:
    """One line of the log from those of all processes; empty in all but the first."""
    parts = gathered(values) or []
    if len(parts) < 2:
        return parts[0] if parts else {}
    joint = {}
    for name in values:
        of_each = [part[name] for part in parts]
        joint[name] = max(of_each) if name in HIGHEST else sum(of_each) / (1 if name in SUMMED else len(of_each))
    return joint


class _Meter:
    """Means of steps with a finite loss since the last reading, kept on the device until then; images per second."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images, self._begun = 0, time.perf_counter()

    def add(self, images: int, finite: Tensor, **values: Tensor) -> None:
        for name, value in {"steps": finite, **values}.items():
            self._sums[name] = self._sums.get(name, 0) + torch.where(finite, value.detach(), 0)
        self._images += images

    def read(self) -> dict[str, float]:
        totals = {name: total.item() for name, total in self._sums.items()}  # host-device sync
        steps = totals.pop("steps", 0)
        means = {name: total / steps for name, total in totals.items()} if steps else {}
        means["images_per_second"] = self._images / (time.perf_counter() - self._begun)
        self._clear()
        return means
