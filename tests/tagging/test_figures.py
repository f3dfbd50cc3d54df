"""Figures: what stands in them, and that they can be written."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tagging.calibration import fit
from tagging.figures import HEAT, Shown, found_labels, recovery, reliability_diagram, side_by_side

PICTURE = Image.new("RGB", (80, 40), (200, 40, 40))
STRANGE = "a_$b^ {c}$ & \\d%"


def maps(*peaks):
    charts = torch.zeros(len(peaks), 2, 3)
    charts[:, 1, 2] = torch.tensor(peaks)
    return charts


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def over_pictures(figure):
    """The maps in a figure."""
    return [image for axes in figure.axes for image in axes.images if image.get_cmap() == HEAT]


def written(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)


def test_found_labels_stand_in_the_row_of_their_picture_on_one_scale():
    first = Shown(PICTURE, "one.jpg", ("dog 0.90", "cat 0.20"), maps(0.9, 0.2), {"dog 0.90": "red"})
    figure = found_labels([first, Shown(PICTURE, "two.jpg", (STRANGE,), maps(0.5))], columns=5)
    assert titles(figure) == ["one.jpg", "dog 0.90", "cat 0.20", "two.jpg", STRANGE]
    assert [float(image.get_array().max()) for image in over_pictures(figure)] == pytest.approx([0.9, 0.2, 0.5])
    assert {image.get_clim() for image in over_pictures(figure)} == {(0, 1)}
    assert [axes.title.get_color() for axes in figure.axes if axes.get_title()][1:3] == ["red", "black"]
    written(figure)


def test_no_more_columns_are_drawn_than_wanted():
    figure = found_labels([Shown(PICTURE, "x", ("a", "b", "c"), maps(1, 1, 1))], columns=2)
    assert titles(figure) == ["x", "a", "b"]


def test_a_title_is_broken_where_it_would_be_wider_than_its_picture():
    shown = Shown(PICTURE, "a" * 60, ("globe showing Asia-Australia 0.12",), maps(1))
    assert titles(found_labels([shown], columns=1)) == [
        "\n".join(["a" * 26, "a" * 26, "a" * 8]), "globe showing\nAsia-Australia 0.12",
    ]  # fmt: skip


def test_nothing_lies_over_a_picture_where_a_map_is_zero():
    assert HEAT(0.0)[3] == 0
    alphas = [HEAT(value)[3] for value in np.linspace(0, 1, 50)]
    assert alphas == sorted(alphas)


def test_recovery_has_a_row_of_maps_for_each_kind_of_features():
    affinity = {"CLIP": maps(0.1, 0.2), "SAA": maps(0.3, 0.4), "SAA + TSS": maps(0.5, 0.6)}
    figure = recovery(PICTURE, maps(0.7)[0], maps(0.05)[0], affinity, ("dog", STRANGE))
    named = {axes.get_ylabel(): axes for axes in figure.axes}
    assert [float(named[name].images[-1].get_array().max()) for name in affinity] == pytest.approx([0.1, 0.3, 0.5])
    assert titles(figure).count(STRANGE) == 3
    assert [t.replace("\n", " ") for t in titles(figure) if "up to" in t] == [
        "attention of CLS up to 0.70", "region weights (LPD) up to 0.05"
    ]  # fmt: skip
    written(figure)


def test_two_plans_are_drawn_on_one_scale_with_what_is_there_framed():
    plans = {"re-weighting": maps(0.8, 0.6, 0.4), "KCOT": maps(0.9, 0.1, 0.3)}
    figure = side_by_side(PICTURE, plans, ("dog", "cat", STRANGE), 1, framed="labels there")
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["dog", "cat", STRANGE] * 2
    assert {round(image.get_clim()[1], 6) for image in over_pictures(figure)} == {0.9}
    for axes in figure.axes[:2]:
        (frame,) = axes.patches
        assert frame.get_bbox().extents == pytest.approx((0, 0, 1, 0.5))  # around the first picture
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == [
        "re-weighting: mean peak 0.80 of labels there (framed), 0.50 of others",
        "KCOT: mean peak 0.90 of labels there (framed), 0.20 of others",
    ]
    written(figure)


def test_two_plans_without_any_label_that_is_there_have_a_scale_too():
    figure = side_by_side(PICTURE, {"a": maps(0.2), "b": maps(0.4)}, ("dog",), 0, framed="labels there")
    assert [image.get_clim()[1] for image in over_pictures(figure)] == pytest.approx([0.4, 0.4])


def test_the_bins_that_hold_pairs_are_drawn_in_a_reliability_diagram():
    generator = torch.Generator().manual_seed(0)
    evidence = torch.randn(200, 3, 2, generator=generator)
    targets = (evidence[..., 0] + torch.randn(200, 3, generator=generator) > 0).float()
    calibration = fit(evidence, targets, torch.full((200, 3), 1 / 3), ("a", "b", "c"))
    figure = reliability_diagram(calibration)
    published, own = figure.axes[0].lines[1:]
    assert published.get_xdata() == pytest.approx([1 / 3])
    assert published.get_ydata() == pytest.approx([float(targets.mean())])
    assert len(own.get_xdata()) == sum(pairs > 0 for pairs in calibration.reliability.pairs)
    assert re.match(r"probabilities: ECE 0\.0\d\d, Brier 0\.\d\d\d", own.get_label())
    written(figure)
