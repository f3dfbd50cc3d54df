"""What has to be reached on a CPU: how many times as fast as something that is measured in the same run.

Ratios, because seconds are the machine's. The clock decides where the machine is idle; where other programs run it says
little, and the processor's time decides.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tools.benchmarking.comparing import FASTER, SAME
from tools.benchmarking.files import Row
from tools.benchmarking.models import REFERENCE
from tools.benchmarking.solver import LOOP, NATIVE, POT

__all__ = ["TARGETS", "Target", "missed", "target_of"]


class Target(NamedTuple):
    """A ratio, and the least that it has to be."""

    case: str  # how the name of the case begins: what is asked of a case is asked of its variants
    rival: str
    least: float

    @property
    def quantity(self) -> str:
        """Of the rows that it is about."""
        return f"{FASTER} {self.rival}"


TARGETS = (
    Target("training step, 48 labels", REFERENCE, 1.4),
    Target("training step, 925 labels", REFERENCE, 15.0),
    Target("evaluation", REFERENCE, 2.0),
    Target("one image, 1,006 labels", REFERENCE, 60.0),
    Target("encoding", REFERENCE, 10.0),
    Target("solver, 32 x 196 x 48, iterations as needed", LOOP, 3.0),
    Target("solver, 32 x 196 x 925, iterations as needed", LOOP, 4.0),
    Target("solver, 32 x 196 x 48, 100 iterations", LOOP, 3.0),
    Target("solver, 32 x 196 x 925, 100 iterations", LOOP, 10.0),
    Target("solver, 32 x 196 x 925, 100 iterations", POT, 15.0),
    Target(f"solver, 32 x 196 x 48, iterations as needed{NATIVE}", POT, 15.0),
    Target(f"solver, 32 x 196 x 925, iterations as needed{NATIVE}", LOOP, 10.0),
    Target(f"solver, 32 x 196 x 925, iterations as needed{NATIVE}", POT, 15.0),
    Target(f"solver, 32 x 196 x 48, 100 iterations{NATIVE}", POT, 15.0),
)


def target_of(row: Row) -> float | None:
    """The least that a ratio has to be; None where nothing is asked of the row."""
    quantity = row.quantity.removesuffix(f", {SAME}")
    wanted = [one.least for one in TARGETS if row.case.startswith(one.case) and quantity == one.quantity]
    return max(wanted, default=None)


def missed(rows: Iterable[Row], *, busy: bool) -> list[str]:
    """The rows whose median is below their target, in words.

    Args:
        rows: of a CPU.
        busy: whether other programs ran, so that the processor's time decides.
    """
    decisive = [row for row in rows if row.quantity.endswith(SAME) == busy]
    return [
        f"{row.name}: {row.median:.2f} times, not {wanted:g}"
        for row in decisive
        if (wanted := target_of(row)) is not None and row.median < wanted
    ]
