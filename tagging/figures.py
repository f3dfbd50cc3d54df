"""Figures; each is a matplotlib figure that belongs to no window.

Maps lie over the picture, which turns grey and dark below them. All maps of labels in a figure have one colour scale
that starts at 0, so that a label without a place in the picture stays dark.

N regions on a grid of h x w, C labels.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from tagging.calibration import Calibration

__all__ = ["Shown", "found_labels", "recovery", "reliability_diagram", "side_by_side"]

BLUE, GREY, GREEN, RED, INK = "#2a6fb0", "#9a9a9a", "#1a7f37", "#b3261e", "#444444"
SIDE = 1.45  # inches of a picture
LINE = 26  # letters of a title
# Transparent where there is nothing; the colours are those of the page.
HEAT = LinearSegmentedColormap.from_list("heat", [
    (0.0, (0.16, 0.04, 0.35, 0.0)), (0.15, (0.29, 0.08, 0.43, 0.35)), (0.4, (0.75, 0.2, 0.33, 0.6)),
    (0.7, (0.96, 0.51, 0.12, 0.73)), (1.0, (1.0, 0.94, 0.51, 0.86)),
])  # fmt: skip


NONE: Mapping[str, str] = MappingProxyType({})


class Shown(NamedTuple):
    """A picture and maps over it."""

    image: Image.Image
    title: str
    labels: Sequence[str]  # K, each above its map
    maps: Tensor  # (K, h, w), in [0, 1]
    colours: Mapping[str, str] = NONE  # of names of labels


def reliability_diagram(calibration: Calibration) -> Figure:
    """How often labels are present that have a probability of so much: on the diagonal, the numbers hold.

    Drawn for the probabilities and for the published scores read as such, on images that they were not fitted on.
    """
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    chart, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    chart.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for name, held, colour in (
        ("published scores", calibration.published, GREY), ("probabilities", calibration.reliability, BLUE),
    ):  # fmt: skip
        assert held is not None  # as a fitted calibration has both
        filled = [k for k, pairs in enumerate(held.pairs) if pairs]
        label = f"{name}: ECE {held.ece:.3f}, Brier {held.brier:.3f}"
        chart.plot([held.mean[k] for k in filled], [held.share[k] for k in filled], "o-", color=colour, label=label)
        counts.step([(k + 0.5) / len(held.pairs) for k in filled], [held.pairs[k] for k in filled], "o-", where="mid",
                    color=colour, markersize=3)  # fmt: skip
    chart.set(ylabel="share of labels that are present", xlim=(0, 1), ylim=(0, 1), aspect="auto")
    chart.legend(loc="lower right", frameon=False)
    counts.set(xlabel="probability", ylabel="pairs", yscale="log")
    return figure


def found_labels(pictures: Sequence[Shown], *, columns: int) -> Figure:
    """A row for each picture: itself, and the maps of its first labels, as `Tags` holds them.

    Args:
        pictures: one or more.
        columns: maps in a row at most.
    """
    columns = max(1, min(columns, max(len(shown.labels) for shown in pictures)))
    figure, axes = _sheet(len(pictures), 1 + columns)
    for row, shown in zip(axes, pictures, strict=True):
        _picture(row[0], shown.image, shown.title)
        ground = _dimmed(shown.image)
        for place, label, chart in zip(row[1:], shown.labels, shown.maps, strict=False):
            _map(place, ground, chart, label, top=1.0, colour=shown.colours.get(label, "black"))
    _bar(figure, axes, "probability", top=1.0)
    return figure


def recovery(
    image: Image.Image, attention: Tensor, mu: Tensor, affinity: Mapping[str, Tensor], labels: Sequence[str]
) -> Figure:
    """What the features of regions say of each label before the ladder and after, and which regions count.

    Args:
        image: the picture.
        attention: (h, w), of the CLS token.
        mu: (h, w), of LPD.
        affinity: three kinds of features, (K, h, w) each, in [0, 1].
        labels: K.
    """
    figure, axes = _sheet(len(affinity), 1 + len(labels))
    ground = _dimmed(image)
    _picture(axes[0, 0], image, "picture")
    for place, chart, title in ((axes[1, 0], attention, "attention of CLS"), (axes[2, 0], mu, "region weights (LPD)")):
        _map(place, ground, chart, f"{title}\nup to {float(chart.max()):.2f}", top=float(chart.max()))
    for row, (features, charts) in zip(axes[:, 1:], affinity.items(), strict=True):
        row[0].set_ylabel(features, fontsize=10, fontweight="bold")
        for place, label, chart in zip(row, labels, charts, strict=True):
            _map(place, ground, chart, label, top=1.0)
    _bar(figure, axes, "share of the label among all labels, by region", top=1.0)
    return figure


def side_by_side(
    image: Image.Image, plans: Mapping[str, Tensor], labels: Sequence[str], there: int, *, framed: str
) -> Figure:  # fmt: skip
    """Which regions count for which label, for all labels, by two matchers on one scale.

    Args:
        image: the picture.
        plans: two of them, (K, h, w) each, every map sums to 1.
        labels: K, first those that are there.
        there: how many those are; they are framed.
        framed: what is said of them.
    """
    ground = _dimmed(image, side=96)
    columns = max(6, math.ceil(math.sqrt(1.1 * len(labels))))
    rows, tall = math.ceil(len(labels) / columns), ground.shape[0] / ground.shape[1] + 0.28
    figure = Figure(figsize=(1.5 * columns + 1.2, 0.75 * tall * rows + 0.6), layout="constrained")
    panels = figure.subplots(1, 2)
    top = float(max(charts[:there].amax() if there else charts.amax() for charts in plans.values()))
    for panel, (matcher, charts) in zip(panels, plans.items(), strict=True):
        panel.set_title(f"{matcher}: {_peaks(charts, there, framed)}", fontsize=10, loc="left", parse_math=False)
        for k, (label, chart) in enumerate(zip(labels, charts, strict=True)):
            _tile(panel, ground, chart, label, ((k % columns) * 1.08, k // columns * tall), top=top, frame=k < there)
        panel.set(xlim=(-0.04, columns * 1.08), ylim=(rows * tall - 0.2, -0.24), aspect="equal")
        panel.set_axis_off()
    _bar(figure, panels, "share of the label's weight, by region", top=top)
    return figure


def _tile(
    panel: Any, ground: np.ndarray, chart: Tensor, label: str, corner: tuple[float, float], *, top: float, frame: bool
) -> None:  # fmt: skip
    """A map over a dimmed picture of width 1, with its label above."""
    (x, y), colour = corner, GREEN if frame else INK
    tall = ground.shape[0] / ground.shape[1]
    extent = (x, x + 1, y + tall, y)
    panel.imshow(ground, extent=extent)
    panel.imshow(chart.cpu().numpy(), extent=extent, cmap=HEAT, vmin=0, vmax=top, interpolation="bilinear")
    panel.text(
        x + 0.5, y - 0.04, label, ha="center", va="bottom", fontsize=5.5, color=colour, parse_math=False, clip_on=True,
        fontweight="bold" if frame else None,
    )  # fmt: skip
    if frame:
        panel.add_patch(Rectangle((x, y), 1, tall, fill=False, edgecolor=colour, linewidth=2))


def _peaks(charts: Tensor, there: int, framed: str) -> str:
    """How hot maps become."""
    peaks = charts.flatten(1).amax(1)
    parts = [(f"{framed} (framed)", peaks[:there]), ("others", peaks[there:])]
    return "mean peak " + ", ".join(f"{float(of.mean()):.2f} of {what}" for what, of in parts if len(of))


def _sheet(rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure of square places without axes, (rows, columns)."""
    figure = Figure(figsize=(SIDE * columns + 0.9, (SIDE + 0.2) * rows + 0.1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat:
        place.set(xticks=[], yticks=[])
        place.spines[:].set_visible(False)
    return figure, axes


def _picture(place: Any, image: Image.Image, title: str) -> None:
    place.imshow(image.resize(_size(image, 256)), interpolation="bilinear")
    _title(place, title)


def _map(place: Any, ground: np.ndarray, chart: Tensor, label: str, *, top: float, colour: str = "black") -> None:
    """A map over a dimmed picture."""
    height, width = ground.shape[:2]
    extent = (0, width, height, 0)
    place.imshow(ground, extent=extent)
    place.imshow(chart.cpu().numpy(), extent=extent, cmap=HEAT, vmin=0, vmax=top, interpolation="bilinear")
    place.set(xticks=[], yticks=[])
    _title(place, label, color=colour, pad=3)


def _title(place: Any, text: str, **how: Any) -> None:
    """A title, in lines no longer than a picture is wide."""
    lines = (line for given in text.splitlines() for line in wrap(given, LINE, break_on_hyphens=False) or [""])
    place.set_title("\n".join(lines), fontsize=8, parse_math=False, **how)


def _bar(figure: Figure, axes: Any, meaning: str, *, top: float) -> None:
    _scale(figure, meaning, top, ax=axes, fraction=0.02, aspect=30, shrink=0.7, pad=0.01)


def _scale(figure: Figure, meaning: str, top: float, **where: Any) -> None:
    """The colour bar."""
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), HEAT), **where)
    bar.ax.set_facecolor(INK)
    bar.set_label(meaning, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _dimmed(image: Image.Image, side: int = 192) -> np.ndarray:
    """The picture almost grey and darker, (height, width, 3)."""
    pixels = np.asarray(image.convert("RGB").resize(_size(image, side)), np.float32) / 255
    return 0.6 * (0.25 * pixels + 0.75 * pixels.mean(2, keepdims=True))


def _size(image: Image.Image, side: int) -> tuple[int, int]:
    """Width and height with the longer one so long."""
    factor = side / max(image.size)
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))
