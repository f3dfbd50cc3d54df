"""Optimisers over groups of parameters; their learning rates come from `engine.schedules`."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

from engine.checkpoint import CheckpointError
from engine.schedules import Period, Schedule
from errors import UserError

__all__ = ["FUSED", "OptimError", "Optimizers", "ParameterGroup", "optimizers", "set_rates"]

# The weight decay of adam is coupled: it is part of the gradient (L2), as it is for sgd.
KINDS: dict[str, Callable[..., Optimizer]] = {"adamw": AdamW, "adam": Adam, "sgd": SGD}
FUSED = ("cuda",)  # devices where one kernel steps a whole group; on CPUs it would round otherwise


class OptimError(UserError, ValueError):
    """A rate, weight decay, momentum or kind of optimiser that cannot be."""


class ParameterGroup(Protocol):
    """What a method says of parameters that are trained alike."""

    @property
    def name(self) -> str:
        """For the log and messages."""

    @property
    def parameters(self) -> list[Parameter]:
        """What is trained."""

    @property
    def optimizer(self) -> str:
        """A key of KINDS."""

    @property
    def lr(self) -> float:
        """The highest rate of the schedule."""

    @property
    def weight_decay(self) -> float:
        """Of the optimiser."""

    @property
    def momentum(self) -> float:
        """Of SGD."""


@dataclass(frozen=True)
class Optimizers:
    """One optimiser of each kind that is needed, used as one.

    Every parameter group carries its `name` and its `base_lr`, its highest rate.
    """

    by_kind: dict[str, Optimizer]

    def groups(self) -> Iterator[dict[str, Any]]:
        """The parameter groups of all."""
        for optimizer in self.by_kind.values():
            yield from optimizer.param_groups

    def rates(self) -> dict[str, float]:
        """Current learning rates by group."""
        return {group["name"]: group["lr"] for group in self.groups()}

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for optimizer in self.by_kind.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self, scaler: torch.amp.GradScaler, finite: Tensor) -> None:
        """One step of all from gradients of the scaled loss; where that was not `finite`, a scalar, none of them.

        With an enabled scaler an optimiser with a non-finite gradient skips its step too. Fused optimisers skip on the
        device by themselves, which lowers the scale; others make a host-device sync.
        """
        if finite.device.type not in FUSED and not finite:
            return
        for optimizer in self.by_kind.values():
            _step(optimizer, scaler, finite)
        scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State by kind; holds references, as `torch.optim.Optimizer.state_dict` does."""
        return {kind: optimizer.state_dict() for kind, optimizer in self.by_kind.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, rates included, whatever device it was on.

        Raises:
            CheckpointError: if the state is that of other parameter groups.
        """
        if state.keys() != self.by_kind.keys():
            kinds = f"{sorted(state)}, this model needs {sorted(self.by_kind)}"
            raise CheckpointError(f"the checkpoint has optimisers {kinds}")
        for kind, optimizer in self.by_kind.items():
            here = {"fused": optimizer.defaults["fused"]}
            groups = [{**group, **here} for group in state[kind]["param_groups"]]
            try:
                optimizer.load_state_dict({**state[kind], "param_groups": groups})
            except ValueError as error:
                raise CheckpointError(f"the state of {kind} is that of another model: {error}") from error
            _begin_momentum(optimizer)


def optimizers(groups: Iterable[ParameterGroup]) -> Optimizers:
    """An optimiser for each kind that a group asks for; groups without parameters are left out.

    Raises:
        OptimError: naming the group, if it asks for an optimiser that does not exist or one of its numbers is negative.
    """
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        _require_possible(group)
        settings: dict[str, Any] = {
            "params": group.parameters, "name": group.name, "lr": group.lr, "base_lr": group.lr,
            "weight_decay": group.weight_decay,
        }  # fmt: skip
        if group.optimizer == "sgd":
            settings["momentum"] = group.momentum
        if group.parameters:
            by_kind.setdefault(group.optimizer, []).append(settings)
    return Optimizers({kind: _optimizer(kind, settings) for kind, settings in by_kind.items()})


def _optimizer(kind: str, settings: list[dict[str, Any]]) -> Optimizer:
    devices = {parameter.device.type for group in settings for parameter in group["params"]}
    optimizer = KINDS[kind](settings, fused=True if devices <= set(FUSED) else None)
    _begin_momentum(optimizer)
    return optimizer


def _step(optimizer: Optimizer, scaler: torch.amp.GradScaler, finite: Tensor) -> None:
    if not optimizer.defaults["fused"]:
        scaler.step(optimizer)
    elif scaler.is_enabled():  # which looks at gradients: one that is NaN tells it
        gradients = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
        if (first := next(gradients, None)) is not None:
            first.add_(torch.where(finite, 0.0, math.nan))
        scaler.step(optimizer)
    else:  # as the scaler tells it
        optimizer.grad_scale, optimizer.found_inf = None, (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]


def _begin_momentum(optimizer: Optimizer) -> None:
    """Gives a fused SGD its momenta, zero.

    Left to itself it allocates them in its first step, and where loss scaling skips that one, as it often does, they
    stay what the memory held. (torch 2.12, `torch.optim.sgd._fused_sgd`)
    """
    if not isinstance(optimizer, SGD) or not optimizer.defaults["fused"]:
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def _require_possible(group: ParameterGroup) -> None:
    if group.optimizer not in KINDS:
        raise OptimError(f"the {group.name} ask for the optimiser {group.optimizer!r}, not one of {', '.join(KINDS)}")
    numbers = {"learning rate": group.lr, "weight decay": group.weight_decay, "momentum": group.momentum}
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise OptimError(f"the {name} of the {group.name} is {number}; it has to be 0 or more")


def set_rates(pair: Optimizers, schedule: Schedule, period: Period) -> None:
    """Sets the rate of every group to what the schedule gives for its base.

    A schedule that also moves beta1 sets it in every group, in groups of SGD the momentum.
    """
    for group in pair.groups():
        lr, beta1 = schedule(period, group["base_lr"])
        group["lr"] = lr
        if beta1 is None:
            continue
        if "betas" in group:
            group["betas"] = (beta1, group["betas"][1])
        else:
            group["momentum"] = beta1
