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

__all__ = ["OptimError", "Optimizers", "ParameterGroups", "optimizers", "rate_factor", "set_rates"]


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

    Every parameter group carries its `name` and its `base_lr`, the rate at a factor of 1.
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


def rate_factor(progress: float, *, warmup: float, start: float, length: float) -> float:
    """The factor on a base learning rate, in [0, 1].

    Linear from `start` (at progress 0) to 1 (at `warmup`), then (1 + cos(pi e / length)) / 2 of the progress e
    itself: the cosine counts from the beginning, not from the end of the warm-up. Beyond `length` it stays 0.

    Args:
        progress: in epochs; the release uses 1, 2, ... for the whole of the first, second, ... epoch.
        warmup: epochs of warm-up; 0 for none.
        start: factor at progress 0; 0.1 for AdamW and 0 for SGD in the release.
        length: epochs until the cosine reaches 0; > 0.

    Raises:
        OptimError: if `length` is not positive.
    """
    if length <= 0:
        raise OptimError(f"the cosine of the learning rate needs a positive length in epochs, not {length}")
    if progress < warmup:
        return start + (1 - start) * progress / warmup
    return (1 + math.cos(math.pi * min(progress / length, 1.0))) / 2


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


def set_rates(pair: Optimizers, progress: float, *, warmup: float, start: float, length: float) -> None:
    """Sets every rate to its base times `rate_factor`; the warm-up of SGD starts at 0, that of AdamW at `start`.

    Raises:
        OptimError: if `length` is not positive.
    """
    starts = {"adamw": start, "sgd": 0.0}
    for name, optimizer in pair.present().items():
        factor = rate_factor(progress, warmup=warmup, start=starts[name], length=length)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
