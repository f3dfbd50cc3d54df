"""Figures of tables: bars with the deviation over seeds, curves for sweeps, and how the trainings went."""

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.reproduction.outcomes import Outcome
from tools.reproduction.report import ORDERED, Line, Report
from tools.reproduction.tables import PROTOCOLS

__all__ = ["result_figure", "training_figure"]

COLOURS = {"ZSL": "#2a6fb0", "GZSL": "#d98324"}
LARGEST = 10  # lines in one chart that can still be told apart
FAR_APART = 20  # largest loss over the smallest, from which on a linear scale shows only the large ones


def result_figure(made: Report) -> Figure:
    """F1@3 of every row under both protocols, beside each other since their scales differ: a curve for a sweep."""
    lines = [line for line in made.lines if line.outcomes]
    sweep = made.planned.table.is_sweep
    figure = Figure(figsize=(8, 3.2 if sweep else 1.4 + 0.3 * len(lines)), layout="constrained")
    for chart, protocol in zip(figure.subplots(1, 2, sharey=not sweep), PROTOCOLS, strict=True):
        (_curve if sweep else _bars)(chart, lines, f"{protocol} {ORDERED}", COLOURS[protocol])
        chart.set_title(f"{protocol} {ORDERED}", fontsize=10)
        chart.spines[["top", "right"]].set_visible(False)
    return figure


def training_figure(made: Report) -> Figure | None:
    """Losses over the steps and F1@3 of evaluations over the epochs, means over seeds; None if nothing was trained."""
    lines = [line for line in made.lines if any(o.content["curve"]["loss"] for o in line.outcomes)][:LARGEST]
    if not lines:
        return None
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, *scores = figure.subplots(1, 3)
    for line in lines:
        losses.plot(*_mean([o.content["curve"]["loss"] for o in line.outcomes]), linewidth=1, label=line.name)
        for chart, protocol in zip(scores, PROTOCOLS, strict=True):
            points = _mean([_evaluated(outcome, protocol) for outcome in line.outcomes])
            chart.plot(*points, linewidth=1, marker="o", markersize=2.5, label=line.name)
    if losses.dataLim.y0 > 0 and losses.dataLim.y1 > FAR_APART * losses.dataLim.y0:  # other losses, other scales
        losses.set_yscale("log")
    losses.set_title("loss, by step", fontsize=10)
    for chart, protocol in zip(scores, PROTOCOLS, strict=True):
        chart.set_title(f"{protocol} {ORDERED}, by epoch", fontsize=10)
        chart.xaxis.set_major_locator(MaxNLocator(integer=True))
    for chart in (losses, *scores):
        chart.spines[["top", "right"]].set_visible(False)
        chart.tick_params(labelsize=8)
    figure.legend(*losses.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _bars(chart: Axes, lines: Sequence[Line], column: str, colour: str) -> None:
    """A bar with its number for each row; the axis is cut, since differences are small beside the values."""
    places = dict(zip([line.name for line in lines], range(len(lines), 0, -1), strict=True))
    chart.set_yticks(list(places.values()), list(places), fontsize=8)
    there = [line for line in lines if line.values[column]]
    if not there:
        return
    means, spreads = _means(there, column), _spreads(there, column)
    at = [places[line.name] for line in there]
    chart.barh(at, means, color=colour, height=0.7)
    several = [k for k, spread in enumerate(spreads) if spread]
    chart.errorbar([means[k] for k in several], [at[k] for k in several], xerr=[spreads[k] for k in several],
                   fmt="none", ecolor="black", elinewidth=1, capsize=2)  # fmt: skip
    lowest = min(m - s for m, s in zip(means, spreads, strict=True))
    highest = max(m + s for m, s in zip(means, spreads, strict=True))
    reach = highest - lowest or 1.0
    for mean, spread, place in zip(means, spreads, at, strict=True):
        chart.text(mean + spread + 0.04 * reach, place, f"{mean:.1f}", va="center", fontsize=8)
    chart.set_xlim(max(0.0, lowest - 0.5 * reach), highest + 0.3 * reach)
    chart.set_xlabel("axis does not begin at 0" if chart.get_xlim()[0] > 0 else "", fontsize=7)
    chart.tick_params(axis="x", labelsize=8)


def _curve(chart: Axes, lines: Sequence[Line], column: str, colour: str) -> None:
    """The rows of a sweep, evenly spaced."""
    there = [line for line in lines if line.values[column]]
    at = [lines.index(line) for line in there]
    chart.errorbar(at, _means(there, column), yerr=_spreads(there, column), color=colour, marker="o", markersize=4,
                   capsize=3)  # fmt: skip
    chart.set_xticks(range(len(lines)), [line.name.replace(" ", "\n") for line in lines], fontsize=8)
    chart.tick_params(axis="y", labelsize=8)


def _means(lines: Sequence[Line], column: str) -> list[float]:
    return [statistics.mean(line.values[column].values()) for line in lines]


def _spreads(lines: Sequence[Line], column: str) -> list[float]:
    values = [list(line.values[column].values()) for line in lines]
    return [statistics.stdev(one) if len(one) > 1 else 0.0 for one in values]


def _evaluated(outcome: Outcome, protocol: str) -> list[list[float]]:
    """Pairs of epoch and F1@3 of the method that the table shows."""
    entries = outcome.content["curve"]["evaluated"]
    method = outcome.method("ema")
    return [[e["epoch"], e[ORDERED]] for e in entries if (e["method"], e["protocol"]) == (method, protocol)]


def _mean(curves: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    """The mean of curves at the places that all of them have."""
    tables = [{place: value for place, value in curve} for curve in curves]  # noqa: C416 - lists, not pairs
    places = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return places, [statistics.mean(table[place] for table in tables) for place in places]
