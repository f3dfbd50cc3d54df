"""The two optimisers of RAM and their learning rates: AdamW for adapters and temperatures, SGD for prompts.

Rates are a pure function of the progress, so there is no scheduler and nothing of it to save
(release's schedule: warm-up over the first epochs, then a cosine much longer than the training).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer

from engine.checkpoint import CheckpointError

__all__ = ["OptimError", "Optimizers", "ParameterGroups", "optimizers", "scheduled_rate", "set_rates"]


class OptimError(ValueError):
    """A rate, weight decay, momentum or schedule that cannot be."""


class ParameterGroups(NamedTuple):
    """What is trained, grouped by the module it belongs to; each list may be empty."""

    adapters: list[Parameter]
    temperatures: list[Parameter]
    prompts: list[Parameter]


@dataclass(frozen=True)
class Optimizers:
    """The pair, used as one; an optimiser without parameters is None.

    Every parameter group carries its `name` and its `base_lr`, its highest rate.
    """

    adamw: AdamW | None
    sgd: SGD | None

    def present(self) -> dict[str, Optimizer]:
        """Those of the two that have parameters, by name."""
        both = {"adamw": self.adamw, "sgd": self.sgd}
        return {name: optimizer for name, optimizer in both.items() if optimizer is not None}

    def groups(self) -> Iterator[dict[str, Any]]:
        """The parameter groups of both."""
        for optimizer in self.present().values():
            yield from optimizer.param_groups

    def rates(self) -> dict[str, float]:
        """Current learning rates by group: adapters, temperatures, prompts, as far as they exist."""
        return {group["name"]: group["lr"] for group in self.groups()}

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for optimizer in self.present().values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """One step of both from gradients of the scaled loss; an optimiser with a non-finite gradient skips it.

        A disabled scaler makes this a plain step. An enabled one makes one host-device sync per optimiser.
        """
        for optimizer in self.present().values():
            scaler.step(optimizer)
        scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State of those present, by name; holds references, as `torch.optim.Optimizer.state_dict` does."""
        return {name: optimizer.state_dict() for name, optimizer in self.present().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, rates included.

        Raises:
            CheckpointError: if the state is that of other parameter groups.
        """
        present = self.present()
        if state.keys() != present.keys():
            raise CheckpointError(f"the checkpoint has optimisers {sorted(state)}, this model needs {sorted(present)}")
        for name, optimizer in present.items():
            try:
                optimizer.load_state_dict(state[name])
            except ValueError as error:
                raise CheckpointError(f"the state of {name} is that of another model: {error}") from error


def scheduled_rate(progress: float, base: float, *, warmup: float, start: float, floor: float, length: float) -> float:
    """The learning rate of a group at a point of the training.

    Linear from `start` (at progress 0) to `base` (at `warmup`), then
    floor + (base - floor) (1 + cos(pi e / length)) / 2 of the progress e itself: the cosine counts from the beginning,
    not from the end of the warm-up. Beyond `length` it stays at the floor. As in the release, `start` and `floor` are
    rates, the same for every group; a group whose `base` is lower than one of them has its base there, so that a base
    of 0 trains nothing.

    Args:
        progress: in epochs; the release uses 1, 2, ... for the whole of the first, second, ... epoch.
        base: highest rate of the group.
        warmup: epochs of warm-up; 0 for none.
        start: rate at progress 0.
        floor: rate at the end of the cosine.
        length: epochs until the cosine reaches the floor; > 0.

    Raises:
        OptimError: if `length` is not positive.
    """
    if length <= 0:
        raise OptimError(f"the cosine of the learning rate needs a positive length in epochs, not {length}")
    start, floor = min(start, base), min(floor, base)
    if progress < warmup:
        return start + progress * (base - start) / warmup
    return floor + (base - floor) * (1 + math.cos(math.pi * min(progress / length, 1.0))) / 2


def optimizers(
    groups: ParameterGroups,
    *,
    lr: float,
    adapter_factor: float,
    lr_sgd: float,
    weight_decay: float,
    weight_decay_sgd: float,
    momentum: float,
) -> Optimizers:
    """AdamW over adapters (at `lr * adapter_factor`) and temperatures (at `lr`), SGD over prompts (at `lr_sgd`).

    Raises:
        OptimError: if one of the numbers is out of its range, naming it.
    """
    adamw = _named_groups(
        {"adapters": groups.adapters, "temperatures": groups.temperatures},
        {"adapters": lr * adapter_factor, "temperatures": lr},
    )
    sgd = _named_groups({"prompts": groups.prompts}, {"prompts": lr_sgd})
    try:
        return Optimizers(
            AdamW(adamw, lr=lr, weight_decay=weight_decay) if adamw else None,
            SGD(sgd, lr=lr_sgd, weight_decay=weight_decay_sgd, momentum=momentum) if sgd else None,
        )
    except ValueError as error:
        raise OptimError(f"the optimiser refuses its settings: {error}") from error


def _named_groups(parameters: dict[str, list[Parameter]], rates: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {"params": parameters[name], "name": name, "lr": rates[name], "base_lr": rates[name]}
        for name in parameters
        if parameters[name]
    ]


def set_rates(pair: Optimizers, progress: float, *, warmup: float, start: float, floor: float, length: float) -> None:
    """Sets the rate of every group to what `scheduled_rate` gives for its base.

    Raises:
        OptimError: as `scheduled_rate`.
    """
    for group in pair.groups():
        base = group["base_lr"]
        group["lr"] = scheduled_rate(progress, base, warmup=warmup, start=start, floor=floor, length=length)
