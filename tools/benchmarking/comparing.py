"""A call beside others that do the same, and beside the rate at which the machine multiplies matrices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
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
    variants: Mapping[str, Callable[[], Any]] = MappingProxyType({})  # other code for it, by what follows its name


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
        case: what is measured, and its variants; each call is made once before, to fill what it keeps.
        setting: how.
        dtype: of the matrix products that it is measured against.
    """
    runs = {"": case.run, **case.variants}
    calls = {f"{r.name} {k}": each for r in case.rivals for k, each in enumerate(r.runs)}
    memory = {suffix: peak(run, setting) for suffix, run in runs.items()}
    took = in_turn({**runs, **calls, PRODUCT: _product(setting, dtype)}, setting)
    for suffix in runs:
        one = case._replace(name=case.name + suffix)
        yield from _alone(one, took[suffix], memory[suffix], setting)
        for rival in case.rivals:
            theirs = [took[f"{rival.name} {k}"] for k in range(len(rival.runs))]
            yield from _beside(one.name, took[suffix], theirs, rival, setting)
        yield from _shares(one, took[suffix], took[PRODUCT], setting)
    for rival in [] if setting.quick else case.rivals:
        if len(rival.runs) == 1 and (taken := peak(rival.runs[0], setting)) is not None:
            yield Measurement(case.name, f"{MEMORY} of {rival.name}", "MB", [taken])


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


def _alone(case: Case, own: Sequence[Took], memory: float | None, setting: Setting) -> Iterator[Measurement]:
    """The rows of time and memory."""
    yield Measurement(case.name, TIME, "s", [one.wall for one in own])
    if setting.device.type == "cpu":
        yield Measurement(case.name, PROCESSOR, "s", [one.processor for one in own])
    if memory is not None:
        yield Measurement(case.name, MEMORY, "MB", [memory])


def _shares(case: Case, own: Sequence[Took], products: Sequence[Took], setting: Setting) -> Iterator[Measurement]:
    """The rows of the matrix rate."""
    pairs, share = list(zip(own, products, strict=True)), 100 * case.flop / _product_flop()
    yield Measurement(case.name, SHARE, "%", [share * product.wall / one.wall for one, product in pairs])
    if setting.device.type == "cpu":
        values = [share * product.processor / one.processor for one, product in pairs]
        yield Measurement(case.name, f"{SHARE}, {SAME}", "%", values)


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


def _product_flop() -> float:
    return 2.0 * SIDE**3
