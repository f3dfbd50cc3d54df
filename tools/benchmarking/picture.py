"""How cost grows, drawn: time and memory over labels, regions and images, both axes logarithmic."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tools.benchmarking.comparing import MEMORY, PROCESSOR, TIME
from tools.benchmarking.files import Run
from tools.benchmarking.growth import OVER, exponent
from tools.benchmarking.sections import curves, duration, size

__all__ = ["growth_figure"]

COLOURS = ("#2a6fb0", "#d98324", "#3a8f5c", "#b03a48", "#6b5b95")
LINE = 0.054  # of the height of a chart, that a line of a legend takes


def growth_figure(run: Run) -> Figure:
    """A column for each thing that grows, time above memory; a legend names the exponents of the last decade."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    grid = figure.subplots(2, len(OVER))
    written = {PROCESSOR if run.is_busy else TIME: duration, MEMORY: size}
    for charts, (quantity, text) in zip(grid, written.items(), strict=True):
        found = curves(run, quantity)
        for chart, over in zip(charts, OVER, strict=True):
            behind = f", by {over}"
            _draw(chart, {case.removesuffix(behind): p for case, p in found.items() if case.endswith(behind)})
            chart.set_title(f"{quantity} by {over}", fontsize=10)
            chart.yaxis.set_major_formatter(FuncFormatter(lambda value, _, text=text: text(value)))
    return figure


def _draw(chart: Axes, lines: Mapping[str, Mapping[float, float]]) -> None:
    """Lines, and above them a legend with their exponents."""
    chart.set_xscale("log")
    chart.set_yscale("log")
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        there = {place: cost for place, cost in sorted(points.items()) if cost > 0}
        power = exponent(there)
        label = name if power is None else f"{name}: {power:.2f}"
        chart.plot(list(there), list(there.values()), color=colour, marker="o", markersize=3.5, label=label)
    chart.grid(which="major", linewidth=0.4, alpha=0.5)
    chart.spines[["top", "right"]].set_visible(False)
    chart.tick_params(labelsize=8)
    places = sorted({place for points in lines.values() for place in points})
    chart.set_xticks(places, [f"{place:,.0f}" for place in places])
    chart.xaxis.set_minor_locator(NullLocator())
    chart.yaxis.set_major_locator(LogLocator(10, numticks=12))
    if lines:
        chart.legend(
            loc="upper left", fontsize=8, title="exponents of the last decade", title_fontsize=8, frameon=False
        )
        bottom, top = chart.get_ylim()
        chart.set_ylim(bottom, bottom * (top / bottom) ** (1 / (1 - LINE * (len(lines) + 1))))
