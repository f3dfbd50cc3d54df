"""Exponential moving average of what is trained.

The release averages with 0.9997 per step, starts anew from the current weights in every epoch and copies the
global temperature instead of averaging it. Frozen tensors have nothing to average and are left to the model.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from engine.checkpoint import CheckpointError
from errors import UserError

__all__ = ["Ema", "EmaError", "decay_over"]


class EmaError(UserError, ValueError):
    """A decay out of range, or names of tensors that are not there."""


class Ema:
    """Averages of named tensors, updated in a handful of kernels for all of them together.

    Args:
        live: the model's own tensors, trainable parameters and the buffers of trained BatchNorms. They are read
            at every update, so they must be taken after the model was moved to its device, and be changed
            in place only (as optimisers, BatchNorm and `load_state_dict` do).
        decay: weight of the past in one update, in [0, 1).
        copied: names whose current value is taken instead of an average; integer tensors always are.

    Raises:
        EmaError: if `decay` is out of range or `copied` names a tensor that is not in `live`.
    """

    def __init__(self, live: Mapping[str, Tensor], *, decay: float, copied: Collection[str] = ()) -> None:
        if not 0 <= decay < 1:
            raise EmaError(f"the decay of the average must be at least 0 and below 1, not {decay}")
        if unknown := sorted(set(copied) - live.keys()):
            raise EmaError(f"not among the averaged tensors: {unknown}")
        self._live = {name: tensor.detach() for name, tensor in live.items()}
        self._averages = {name: tensor.clone() for name, tensor in self._live.items()}
        self._decay = decay
        self._blended = [n for n, tensor in self._live.items() if tensor.is_floating_point() and n not in copied]
        self._replaced = [name for name in self._live if name not in self._blended]

    @torch.no_grad()
    def update(self) -> None:
        """One step, average = decay * average + (1 - decay) * current; call once per step of the optimiser."""
        if self._blended:
            averages = [self._averages[name] for name in self._blended]
            torch._foreach_lerp_(averages, [self._live[name] for name in self._blended], 1 - self._decay)
        _overwrite([self._averages[name] for name in self._replaced], [self._live[name] for name in self._replaced])

    def reset(self) -> None:
        """Starts anew: the averages become the current values."""
        _overwrite(self._averages.values(), self._live.values())

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name; references, as those of `torch.nn.Module.state_dict` are."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores the averages; the model's own tensors stay as they are.

        Raises:
            CheckpointError: if names or shapes differ from those averaged here.
        """
        if differing := sorted(state.keys() ^ self._averages.keys()):
            raise CheckpointError(f"the average in the checkpoint is of another model: {differing} on one side only")
        for name, average in self._averages.items():  # all of them before the first is overwritten
            if state[name].shape != average.shape:
                shapes = f"{tuple(state[name].shape)}, here {tuple(average.shape)}"
                raise CheckpointError(f"the average in the checkpoint is of another model: {name} is {shapes}")
        _overwrite(self._averages.values(), [state[name] for name in self._averages])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes with the averages inside this context, and has its own values back after it.

        They come back to the bit and after exceptions too; what was changed inside is lost.
        """
        current = [tensor.clone() for tensor in self._live.values()]
        _overwrite(self._live.values(), self._averages.values())
        try:
            yield
        finally:
            _overwrite(self._live.values(), current)


def decay_over(steps: int) -> float:
    """The decay with which an average spans a tenth of a training: 1 - 10 / steps, at least 0."""
    return max(0.0, 1 - 10 / steps)


@torch.no_grad()
def _overwrite(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
