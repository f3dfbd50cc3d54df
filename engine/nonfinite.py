"""Losses that are NaN or infinite: their steps change nothing, are named or stop the training.

That a step changes nothing is decided where the loss is (`Optimizers.step`); here the host looks at the numbers, on a
GPU some steps later, so that nothing waits for them.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from engine.fetch import fetched
from errors import UserError
from parallel import gathered

__all__ = ["LossWatch", "NonFiniteLossError"]

NAMED = 3  # skipped steps of an epoch that are named one by one
WAY_OUT = "begin a new run with lower learning rates, or with SOLVER.AMP off"
STUCK = 100  # skipped steps in a row after which a training will not recover


class NonFiniteLossError(UserError, ValueError):
    """The loss is NaN or infinite; names the epoch, the step and the images."""


class _Loss(NamedTuple):
    read: Callable[[], float]
    epoch: int
    step: int
    paths: Sequence[str]


@dataclass
class LossWatch:
    """The losses of a training, one after another.

    Attributes:
        skip: leave out a batch whose loss is NaN or infinite, as loss scaling does in the release, or stop.
        skipped: steps that the epoch has left out, as far as `look` has seen.
    """

    skip: bool
    skipped: int = 0
    _in_a_row: int = 0  # skipped steps since the last good one
    _unseen: list[_Loss] = field(default_factory=list)

    def add(self, loss: Tensor, *, epoch: int, step: int, paths: Sequence[str]) -> None:
        """Takes in the loss of a step, and waits for nothing."""
        self._unseen.append(_Loss(fetched(loss), epoch, step, paths))

    def look(self) -> None:
        """Waits for all losses that came in, and says which are not finite.

        Raises:
            NonFiniteLossError: at the first of them if such are not skipped, else at the hundredth in a row.
        """
        losses, self._unseen = self._unseen, []
        for loss in losses:
            if math.isfinite(number := loss.read()):
                self._in_a_row = 0
            else:
                self._leave_out(loss, number)

    def begin_epoch(self) -> None:
        """Counts anew."""
        self.skipped = 0

    def end_epoch(self, epoch: int, steps: int, *, whole: bool) -> None:
        """Says how many steps of an epoch were left out.

        Raises:
            NonFiniteLossError: if all of a whole epoch of several were; as `look`.
        """
        self.look()
        if not self.skipped:
            return
        if whole and self.skipped == steps > 1:
            raise NonFiniteLossError(f"no loss of epoch {epoch} was finite; {WAY_OUT}")
        warnings.warn(f"epoch {epoch} left out {self.skipped} of {steps} steps without a finite loss", stacklevel=2)

    def _leave_out(self, loss: _Loss, number: float) -> None:
        paths = [path for share in gathered(loss.paths) or [] for path in share]
        what = f"the loss is {number} in epoch {loss.epoch}, step {loss.step}, images {', '.join(paths)}"
        if not self.skip:
            raise NonFiniteLossError(what)
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self._in_a_row == STUCK:
            raise NonFiniteLossError(f"{STUCK} steps in a row without a finite loss, now {what}; {WAY_OUT}")
        if self.skipped <= NAMED:
            warnings.warn(f"left out: {what}", stacklevel=2)
