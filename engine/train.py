"""One epoch of training: forward, loss, backward, step, average, log."""

import math
import time
import warnings
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
from engine.fetch import fetched
from engine.optim import Optimizers
from engine.schedules import Period
from errors import UserError
from parallel import as_one, gathered, is_first, world_size

__all__ = ["NonFiniteLossError", "SeparateLossError", "Trainer"]


class SeparateLossError(UserError, ValueError):
    """A loss that each process computes for its own images."""


class NonFiniteLossError(UserError, ValueError):
    """The loss is NaN or infinite; names the epoch, the step and the images."""


NAMED = 3  # skipped steps of an epoch that are named one by one
WAY_OUT = "begin a new run with lower learning rates, or with SOLVER.AMP off"
SUMMED, HIGHEST = ("images_per_second",), ("peak_memory_gb",)  # of several processes; of the rest the mean is logged
STUCK = 100  # skipped steps in a row after which a training will not recover


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
    _skipped: int = 0  # steps of the epoch
    _in_a_row: int = 0  # skipped steps since the last good one
    _compared: bool = False  # whether the losses of the processes are known to be one
    _meter: "_Meter" = field(default_factory=lambda: _Meter())

    def __post_init__(self) -> None:
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
                in a row, or after a whole epoch of several. Such losses update nothing.
        """
        self.model.train()
        self.model.begin_epoch(epoch)
        buffers = dict(self.model.named_buffers())
        self._buffers = [buffers[name] for name in self.model.trained_state() if name in buffers]
        self._skipped, begun = 0, self.step
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
                    values = _of_all(self._values())
                    if is_first():
                        self.log(epoch=epoch, step=self.step, **values)
                    bar.set_postfix(loss=f"{loss.item():.3f}")
                if after_step is not None:
                    after_step(done)
        if self._skipped:
            self._sum_up(epoch, self.step - begun, whole=first_batch == 0)
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
        read = fetched(loss)
        self.optimizers.zero_grad()
        self.scaler.scale(loss).backward()
        if not math.isfinite(number := read()):  # the only wait for the device, which has the backward pass to do
            for buffer, value in zip(self._buffers, before, strict=True):
                buffer.copy_(value)
            self._leave_out(batch, epoch, number)
            return loss
        self._in_a_row = 0
        self.optimizers.step(self.scaler)
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        named = {f"loss_{name}": value for name, value in losses.items()}
        self._meter.add(len(targets), loss=loss, **named, **self.model.diagnostics(output))
        return loss

    def _require_one(self, loss: Tensor) -> None:
        """Refuses, in the first step, a method whose loss is not that of the whole batch in every process."""
        if not self._compared and len(set(map(str, of_each := gathered(loss.item()) or []))) > 1:
            raise SeparateLossError(
                f"the processes have losses of their own, {of_each[0]} and others: train in one process, or reduce the "
                "loss over all of them as model/method.py says"
            )
        self._compared = True

    def _leave_out(self, batch: Any, epoch: int, loss: float) -> None:
        """Says which batch has no finite loss, or stops there."""
        paths = [path for share in gathered(batch.paths) or [] for path in share]
        what = f"the loss is {loss} in epoch {epoch}, step {self.step + 1}, images {', '.join(paths)}"
        if not self.skip_nonfinite:
            raise NonFiniteLossError(what)
        self.step, self._skipped, self._in_a_row = self.step + 1, self._skipped + 1, self._in_a_row + 1
        if self._in_a_row == STUCK:
            raise NonFiniteLossError(f"{STUCK} steps in a row without a finite loss, now {what}; {WAY_OUT}")
        if self._skipped <= NAMED:
            warnings.warn(f"left out: {what}", stacklevel=2)

    def _sum_up(self, epoch: int, steps: int, *, whole: bool) -> None:
        """Says how many steps of an epoch were left out; stops if all of a whole epoch of several were."""
        if whole and self._skipped == steps > 1:
            raise NonFiniteLossError(f"no loss of epoch {epoch} was finite; {WAY_OUT}")
        warnings.warn(f"epoch {epoch} left out {self._skipped} of {steps} steps without a finite loss", stacklevel=2)

    def _values(self) -> dict[str, float]:
        values = self._meter.read()
        values |= {f"lr_{name}": rate for name, rate in self.optimizers.rates().items()}
        if self._skipped:
            values["skipped_steps"] = self._skipped
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
    """Means since the last reading, kept on the device until then; and images per second."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps, self._images, self._begun = 0, 0, time.perf_counter()

    def add(self, images: int, **values: Tensor) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._steps += 1
        self._images += images

    def read(self) -> dict[str, float]:
        means = {name: (total / self._steps).item() for name, total in self._sums.items()}  # host-device sync
        means["images_per_second"] = self._images / (time.perf_counter() - self._begun)
        self._clear()
        return means
