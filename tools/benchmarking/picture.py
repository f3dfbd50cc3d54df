"""How cost grows, drawn: time and memory over labels, regions and images, both axes logarithmic."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.benchmarking.comparing import MEMORY, PROCESSOR, TIME
from tools.benchmarking.files import Run
from tools.benchmarking.growth import OVER, exponent
from tools.benchmarking.sections import curves

__all__ = ["growth_figure"]

COLOURS = ("#2a6fb0", "#d98324", "#3a8f5c", "#b03a48", "#6b5b95")


def growth_figure(run: Run) -> Figure:
    """A column for each thing that grows, time above memory; a legend names the exponents of the last decade."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    grid = figure.subplots(2, len(OVER), sharex="col")
    quantities = {PROCESSOR if run.is_busy else TIME: "s", MEMORY: "MB"}
    for charts, (quantity, unit) in zip(grid, quantities.items(), strict=True):
        found = curves(run, quantity)
        for chart, over in zip(charts, OVER, strict=True):
            behind = f", by {over}"
            _draw(chart, {case.removesuffix(behind): p for case, p in found.items() if case.endswith(behind)})
            chart.set_ylabel(f"{quantity}, {unit}", fontsize=9)
            chart.set_title(f"{quantity} by {over}", fontsize=10)
    for chart, over in zip(grid[-1], OVER, strict=True):
        chart.set_xlabel(over, fontsize=9)
    return figure


def _draw(chart: Axes, lines: Mapping[str, Mapping[float, float]]) -> None:
    """A line with its exponent in the legend."""
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        there = {place: cost for place, cost in sorted(points.items()) if cost > 0}
        power = exponent(there)
        label = name if power is None else f"{name}: {power:.2f}"
        chart.plot(
            list(there), list(there.values()), color=colour, marker="o", markersize=3.5, linewidth=1.4, label=label
        )
    chart.set_xscale("log")
    chart.set_yscale("log")
    chart.grid(which="major", linewidth=0.4, alpha=0.5)
    chart.spines[["top", "right"]].set_visible(False)
    chart.tick_params(labelsize=8)
    if lines:
        chart.legend(fontsize=8, title="exponents of the last decade", title_fontsize=8, frameon=False)
