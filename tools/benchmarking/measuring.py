"""Repeated measurements: seconds by the clock and on the processor, and the memory that a call takes."""

import ctypes
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine import memory

__all__ = ["Measurement", "Setting", "Took", "free", "in_turn", "peak", "timed"]

STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")  # 5, written to it, resets the peak that STATUS shows (Linux)
SHORTEST = 0.05  # seconds: what is quicker is called several times in a round
LONG = 1.0  # seconds: from here on the first call differs little from later ones
LONGEST = 4.0  # seconds: where a call takes more, one round has to do for a quick measurement


class Setting(NamedTuple):
    """How to measure."""

    device: torch.device
    quick: bool

    @property
    def repeats(self) -> int:
        """Counted rounds."""
        return 2 if self.quick else 5


class Measurement(NamedTuple):
    """Repeated values of one thing."""

    case: str  # what was done, and how large it was
    quantity: str  # what was measured of it
    unit: str
    values: Sequence[float]
    at: float | None = None  # where on a curve

    def row(self) -> dict[str, Any]:
        """What is kept of it."""
        place = {} if self.at is None else {"at": self.at}
        return {
            "case": self.case, "quantity": self.quantity, "unit": self.unit, **place,
            "median": statistics.median(self.values), "min": min(self.values), "max": max(self.values),
            "values": list(self.values),
        }  # fmt: skip


class Took(NamedTuple):
    """Seconds of a call: by the clock, and of all threads on the processor."""

    wall: float
    processor: float


def in_turn(runs: Mapping[str, Callable[[], Any]], setting: Setting) -> dict[str, list[Took]]:
    """What each takes, one round after another, so that whatever slows the machine slows all of them.

    A first call is not counted, unless it takes long and the measurement is to be quick: whoever keeps something from
    one call to the next is called before. Where one takes very long, there is one round then.
    """
    took: dict[str, list[Took]] = {name: [] for name in runs}
    calls, longest = {}, 0.0
    for name, run in runs.items():
        first = timed(run, 1, setting)
        if first.wall < LONG:
            first = timed(run, 1, setting)
        elif setting.quick:
            took[name].append(first)
        calls[name] = max(1, math.ceil(SHORTEST / max(first.wall, 1e-9)))
        longest = max(longest, first.wall)
    for number in range(1 if setting.quick and longest > LONGEST else setting.repeats):
        for name, run in runs.items():
            if len(took[name]) <= number:
                took[name].append(timed(run, calls[name], setting))
    return took


def peak(run: Callable[[], Any], setting: Setting) -> float | None:
    """MB that a call takes at its most above what was held before; None where the system does not say."""
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setting.device)
        held = torch.cuda.memory_allocated(setting.device)
        run()
        return (torch.cuda.max_memory_allocated(setting.device) - held) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before is there to be used again, uncounted
        FORGET.write_text("5")
        before = memory.entry(STATUS, "VmRSS")
    except (OSError, AttributeError, KeyError):
        return None
    run()
    return (memory.entry(STATUS, "VmHWM") - before) / 1e6


def free(setting: Setting) -> float | None:
    """MB that are free; None where the system does not say."""
    if setting.device.type == "cuda":
        return torch.cuda.mem_get_info(setting.device)[0] / 1e6
    there = memory.available()
    return None if there is None else there / 1e6


def timed(run: Callable[[], Any], calls: int, setting: Setting) -> Took:
    """What one call takes, mean over several."""
    wall, processor = _now(setting), time.process_time()
    for _ in range(calls):
        run()
    return Took((_now(setting) - wall) / calls, (time.process_time() - processor) / calls)


def _now(setting: Setting) -> float:
    if setting.device.type == "cuda":
        torch.cuda.synchronize(setting.device)
    return time.perf_counter()
