"""Figures; each is a matplotlib figure that belongs to no window."""

from matplotlib.figure import Figure

from tagging.calibration import Calibration

__all__ = ["reliability_diagram"]

BLUE, GREY = "#2a6fb0", "#9a9a9a"


def reliability_diagram(calibration: Calibration) -> Figure:
    """How often labels are present that have a probability of so much: on the diagonal, the numbers hold.

    Drawn for the probabilities and for the published scores read as such, on images that they were not fitted on.
    """
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    chart, counts = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    chart.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for name, found, colour in (
        ("published scores", calibration.published, GREY), ("probabilities", calibration.reliability, BLUE),
    ):  # fmt: skip
        assert found is not None  # as a fitted calibration has both
        filled = [k for k, pairs in enumerate(found.pairs) if pairs]
        label = f"{name}: ECE {found.ece:.3f}, Brier {found.brier:.3f}"
        chart.plot([found.mean[k] for k in filled], [found.share[k] for k in filled], "o-", color=colour, label=label)
        counts.step([(k + 0.5) / len(found.pairs) for k in filled], [found.pairs[k] for k in filled], "o-", where="mid",
                    color=colour, markersize=3)  # fmt: skip
    chart.set(ylabel="share of labels that are present", xlim=(0, 1), ylim=(0, 1), aspect="auto")
    chart.legend(loc="lower right", frameon=False)
    counts.set(xlabel="probability", ylabel="pairs", yscale="log")
    return figure
