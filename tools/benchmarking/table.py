"""All values of a run beside those of another."""

from collections.abc import Sequence

from engine.results import aligned
from tools.benchmarking.files import Row

__all__ = ["short", "table"]


def table(rows: Sequence[Row], old: Sequence[Row]) -> str:
    """Median and extremes of each row, beside the medians of before."""
    before = {row.name: row.median for row in old}
    cells = [["measurement", "unit", "median", "min", "max", "before", "change"]]
    for row in rows:
        was = before.get(row.name)
        compared = ["-", "-"] if not was else [short(was), f"{100 * (row.median / was - 1):+.1f} %"]
        cells.append([row.name, row.unit, *map(short, (row.median, row.least, row.most)), *compared])
    return aligned(cells, left=2)


def short(value: float) -> str:
    """Three digits, or all in front of the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
