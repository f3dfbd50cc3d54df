"""A call beside others that do the same, and beside the rate at which the machine multiplies matrices."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from tools.benchmarking.measuring import Measurement, Setting, Took, in_turn, peak
from tools.benchmarking.precision import Precision, precisions

__all__ = [
    "FASTER", "MEMORY", "PROCESSOR", "RATE", "SAME", "SHARE", "TIME", "Case", "Rival", "at_precisions", "compared",
    "longer", "matrix_rate",
]  # fmt: skip

# Quantities of a measurement; of a rival its name stands before or behind them.
TIME, PROCESSOR, MEMORY, SHARE, RATE = "time", "processor time", "memory", "of the matrix rate", "matrix rate"
FASTER, SAME = "faster than", "by processor time"
SIDE = 2048  # of the matrices that are multiplied: 17 GFLOP
PRODUCT = "matrix product"


class Rival(NamedTuple):
    """What is measured beside, by one call or by several."""

    name: str
    runs: tuple[Callable[[], Any], ...]
    total: Callable[[Sequence[float]], float] = sum  # seconds of the calls -> seconds of what is compared
    note: str = ""  # how its time was come by


class Case(NamedTuple):
    """What is measured."""

    name: str
    run: Callable[[], Any]
    rivals: Sequence[Rival]
    flop: float  # of the call, at the least


def longer(name: str, make: Callable[[int], Callable[[], Any]], counts: tuple[int, int], wanted: int) -> Rival:
    """A rival whose time is a line in a number, such as that of padded labels, taken from two smaller numbers.

    Args:
        name: of the rival.
        make: from a number to the call that is measured.
        counts: the two, the smaller first.
        wanted: the number that the time is of.
    """
    few, many = counts
    far = (wanted - few) / (many - few)

    def total(seconds: Sequence[float]) -> float:
        return seconds[0] + far * (seconds[1] - seconds[0])

    return Rival(name, (make(few), make(many)), total, f", from {few} and {many} labels")


def compared(case: Case, setting: Setting, dtype: torch.dtype = torch.float32) -> Iterator[Measurement]:
    """Time, processor time and memory of a call; how many times as fast it is as others; its share of the matrix rate.

    Args:
        case: what is measured; its call is made once before, to fill what it keeps.
        setting: how.
        dtype: of the matrix products that it is measured against.
    """
    name, run, rivals, flop = case
    taken = peak(run, setting)
    calls = {f"{r.name} {k}": each for r in rivals for k, each in enumerate(r.runs)}
    took = in_turn({"": run, **calls, PRODUCT: _product(setting, dtype)}, setting)
    own = took[""]
    yield Measurement(name, TIME, "s", [one.wall for one in own])
    if setting.device.type == "cpu":
        yield Measurement(name, PROCESSOR, "s", [one.processor for one in own])
    if taken is not None:
        yield Measurement(name, MEMORY, "MB", [taken])
    for rival in rivals:
        theirs = [took[f"{rival.name} {k}"] for k in range(len(rival.runs))]
        yield from _beside(name, own, theirs, rival, setting)
    pairs, share = list(zip(own, took[PRODUCT], strict=True)), 100 * flop / _product_flop()
    yield Measurement(name, SHARE, "%", [share * product.wall / one.wall for one, product in pairs])
    if setting.device.type == "cpu":
        values = [share * product.processor / one.processor for one, product in pairs]
        yield Measurement(name, f"{SHARE}, {SAME}", "%", values)


def at_precisions(make: Callable[[Precision], Case], setting: Setting) -> Iterator[Measurement]:
    """A case in float32 beside its rivals, then at whatever other precisions the device has, beside float32."""
    full: Callable[[], Any] | None = None
    for precision in precisions(setting.device):
        case = make(precision)
        if full is not None:
            case = case._replace(name=f"{case.name}, {precision.name}", rivals=[Rival("float32", (full,))])
        yield from compared(case, setting, precision.products)
        full = full or case.run


def _product(setting: Setting, dtype: torch.dtype) -> Callable[[], Any]:
    """A call that multiplies two square matrices."""
    a, b = (torch.randn(SIDE, SIDE, device=setting.device).to(dtype) for _ in range(2))
    return lambda: a @ b


def matrix_rate(setting: Setting, dtype: torch.dtype) -> Measurement:
    """GFLOP/s of such products."""
    took = in_turn({PRODUCT: _product(setting, dtype)}, setting)[PRODUCT]
    rates = [_product_flop() / one.wall / 1e9 for one in took]
    return Measurement(f"matrices of {SIDE} x {SIDE}, {str(dtype).removeprefix('torch.')}", RATE, "GFLOP/s", rates)


def _beside(
    case: str, own: Sequence[Took], theirs: Sequence[Sequence[Took]], rival: Rival, setting: Setting
) -> Iterator[Measurement]:  # fmt: skip
    """The rows of a rival."""
    rounds = list(zip(*theirs, strict=True))  # (rounds, calls)
    walls = [rival.total([one.wall for one in each]) for each in rounds]
    yield Measurement(case, f"{rival.name}{rival.note}", "s", walls)
    ratios = [wall / one.wall for wall, one in zip(walls, own, strict=True)]
    yield Measurement(case, f"{FASTER} {rival.name}", "x", ratios)
    if setting.device.type == "cpu":  # says the same of a machine that others use too
        processor = [rival.total([one.processor for one in each]) for each in rounds]
        ratios = [theirs / one.processor for theirs, one in zip(processor, own, strict=True)]
        yield Measurement(case, f"{FASTER} {rival.name}, {SAME}", "x", ratios)
    if not setting.quick and len(rival.runs) == 1 and (taken := peak(rival.runs[0], setting)) is not None:
        yield Measurement(case, f"{MEMORY} of {rival.name}", "MB", [taken])


def _product_flop() -> float:
    return 2.0 * SIDE**3
