"""The machine itself: the rate of its matrix products, and whether other programs run on it."""

import os
from collections.abc import Iterator

from tools.benchmarking.comparing import matrix_rate
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.precision import precisions

__all__ = ["load", "measure"]


def measure(setting: Setting) -> Iterator[Measurement]:
    """GFLOP/s at every precision there is."""
    for precision in precisions(setting.device):
        yield matrix_rate(setting, precision.products)


def load() -> float | None:
    """Processes that want to run, mean of the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
