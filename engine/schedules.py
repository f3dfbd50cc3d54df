"""Learning rates as functions of the progress, by name.

A rate is constant within a `Period`, an epoch or a step, and depends on it, the highest rate of the group and the
settings alone: there is nothing to save, and a training goes on from anywhere. Names say how a rate rises and falls:

    cosine           linear rise, and a cosine that counts from the beginning of the training (RAM's release)
    constant-cosine  constant, then a cosine whose length counts from there (CoOp, DualCoOp, CoMC)
    linear-cosine    linear rise, then a cosine over the rest (MKT, both stages)
    stairs-cosine    the same, but the last period of the warm-up has the highest rate already (BiAM)
    one-cycle        half a cosine up, half a cosine down, and the first moment of Adam against them (ML-Decoder)

Sources: the public code of these methods; for the last, `torch.optim.lr_scheduler.OneCycleLR` (Smith and Topin, 2017).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from errors import UserError

__all__ = ["SCHEDULES", "Period", "Rate", "Schedule", "ScheduleError", "Settings", "schedule"]

BETA1_LOW, BETA1_HIGH = 0.85, 0.95  # between which one-cycle moves beta1, torch's defaults
PROPORTIONAL = {"linear-cosine", "stairs-cosine", "one-cycle"}  # `start` and `floor` are those of the highest rate


class ScheduleError(UserError, ValueError):
    """A schedule that does not exist, or settings that it cannot have."""


class Period(NamedTuple):
    """A stretch of the training during which rates are constant: one of the equal parts of an epoch.

    The first epoch as a whole is Period(1, 0, 1), the second step of ten in it is Period(1, 1, 10).
    """

    epoch: int  # from 1
    part: int  # from 0
    parts: int

    @property
    def begun(self) -> float:
        """Epochs done when it begins."""
        return self.epoch - 1 + self.part / self.parts

    @property
    def ended(self) -> float:
        """Epochs done when it ends."""
        return self.epoch - 1 + (self.part + 1) / self.parts


class Rate(NamedTuple):
    """What a group learns at."""

    lr: float
    beta1: float | None = None  # Adam's, or the momentum of SGD; None: that of the group


class Settings(NamedTuple):
    """The numbers of a schedule; lengths are in epochs."""

    highest: float  # the rate that `start` and `floor` belong to where they are taken in proportion
    warmup: float  # length of the warm-up; 0 for none
    start: float  # rate where it begins
    floor: float  # rate at the end of the cosine
    length: float  # of the schedule; later the rate stays where it is


Schedule = Callable[[Period, float], Rate]  # of a period and the highest rate of a group


def schedule(name: str, settings: Settings) -> Schedule:
    """The schedule of a name, a function of the period and of the highest rate of a group.

    Raises:
        ScheduleError: if there is none of this name, the length is not positive, or the highest rate is 0 in one that
            takes `start` and `floor` in proportion to it.
    """
    if name not in SCHEDULES:
        raise ScheduleError(f"SOLVER.SCHEDULE must be one of {', '.join(SCHEDULES)}, not {name!r}")
    if settings.length <= 0:
        raise ScheduleError(f"the learning rate needs a positive length of its {name} in epochs, not {settings.length}")
    if name in PROPORTIONAL and settings.highest <= 0:
        what = "takes WARMUP_LR and MIN_LR in proportion to a BASE_LR above 0"
        raise ScheduleError(f"SOLVER.SCHEDULE {name} {what}, not {settings.highest}")
    return partial(SCHEDULES[name], settings=settings)


def _cosine(period: Period, base: float, settings: Settings) -> Rate:
    """Linear from `start` to `base` at the end of the warm-up, then the cosine of the progress itself.

    As in RAM's release the progress is that at the end of the period (1, 2, ... in whole epochs), the cosine counts
    from the beginning of the training, and `start` and `floor` are rates, the same for every group. A group whose
    `base` is lower than one of them has its base there, so that a base of 0 trains nothing.
    """
    start, floor, progress = min(settings.start, base), min(settings.floor, base), period.ended
    if progress < settings.warmup:
        return Rate(start + progress * (base - start) / settings.warmup)
    return Rate(_annealed(_share(progress, settings.length), base, floor))


def _constant_cosine(period: Period, base: float, settings: Settings) -> Rate:
    """`start` throughout the warm-up, then a cosine from `base` that would reach `floor` after `length` more epochs.

    In CoOp, with one epoch of warm-up and a length E of all epochs, epoch e (from 1) learns at
    base (1 + cos(pi (e - 2) / E)) / 2: the cosine does not come to its end. `start` and `floor` are those of every
    group, as in `cosine`.
    """
    if period.begun < settings.warmup:
        return Rate(min(settings.start, base))
    share = _share(period.begun - settings.warmup, settings.length)
    return Rate(_annealed(share, base, min(settings.floor, base)))


def _linear_cosine(period: Period, base: float, settings: Settings) -> Rate:
    """Linear from `start` to `base` over the warm-up, then a cosine over the rest of `length` to `floor`.

    The progress is that at the beginning of the period. Groups with another base than `highest` have their `start` and
    `floor` in proportion.
    """
    return _risen_and_fallen(period, base, settings, risen=_share(period.begun, settings.warmup))


def _stairs_cosine(period: Period, base: float, settings: Settings) -> Rate:
    """As `linear-cosine`, but rising with the progress at the end of the period.

    In BiAM the first three epochs learn at 1/3, 2/3 and all of `base`, and the fourth, where the cosine begins, again.
    """
    return _risen_and_fallen(period, base, settings, risen=_share(period.ended, settings.warmup))


def _one_cycle(period: Period, base: float, settings: Settings) -> Rate:
    """Half a cosine from `start` up to `base`, then half a one down to `floor`, beta1 from high to low and back.

    With n periods in an epoch the highest rate is that of period warmup n - 1 and the floor that of the last,
    length n - 1, counted from 0. torch's pct_start is warmup / length; its div_factor is highest / start and its
    final_div_factor start / floor, whatever the group's base.
    """
    now = (period.epoch - 1) * period.parts + period.part
    peak, last = settings.warmup * period.parts - 1, settings.length * period.parts - 1
    if now < peak:
        share = _share(now, peak)
        lr, beta1 = _annealed(share, _start(settings), 1.0), _annealed(share, BETA1_HIGH, BETA1_LOW)
    else:
        share = _share(now - peak, last - peak)
        lr, beta1 = _annealed(share, 1.0, _floor(settings)), _annealed(share, BETA1_LOW, BETA1_HIGH)
    return Rate(base * lr, beta1)


def _risen_and_fallen(period: Period, base: float, settings: Settings, *, risen: float) -> Rate:
    """The rate in the warm-up, of which `risen` is done, or in the cosine behind it."""
    if period.begun < settings.warmup:
        start = _start(settings)
        return Rate(base * (start + (1 - start) * risen))
    share = _share(period.begun - settings.warmup, settings.length - settings.warmup)
    return Rate(base * _annealed(share, 1.0, _floor(settings)))


def _start(settings: Settings) -> float:
    return min(settings.start / settings.highest, 1.0)


def _floor(settings: Settings) -> float:
    return min(settings.floor / settings.highest, 1.0)


def _share(done: float, whole: float) -> float:
    """How much of a length is done, at most all of it; all of one that has none."""
    return min(done / whole, 1.0) if whole > 0 else 1.0


def _annealed(share: float, begin: float, end: float) -> float:
    """Half a cosine from `begin` to `end`."""
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Callable[..., Rate]] = {
    "cosine": _cosine, "constant-cosine": _constant_cosine, "linear-cosine": _linear_cosine,
    "stairs-cosine": _stairs_cosine, "one-cycle": _one_cycle,
}  # fmt: skip
