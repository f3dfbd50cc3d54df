"""Curves and their exponents."""

import pytest
import torch

from tools.benchmarking import growth
from tools.benchmarking.growth import CURVES, IMAGES, OVER, Curve, exponent, measure
from tools.benchmarking.models import build

SHORT = {"labels": 12, "regions": 4, "images": 2}


def test_a_power_is_found():
    assert exponent({n: 3.0 * n**1.7 for n in (1, 2, 4, 8, 16)}) == pytest.approx(1.7)


def test_an_exponent_is_that_of_the_last_decade():
    constant_first = {n: max(1.0, n / 1000) for n in (1, 10, 100, 1000, 3000, 10_000)}
    assert exponent(constant_first) == pytest.approx(1.0)


def test_of_a_decade_with_few_places_the_last_three_count():
    assert exponent({1: 5.0, 10: 1.0, 100: 10.0, 1000: 100.0}) == pytest.approx(1.0)
    assert exponent({1: 1.0, 10: 2.0}) is None


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: f"{curve.name}, by {curve.over}")
def test_every_curve_runs(tiny, quick, curve):
    torch.manual_seed(0)
    assert curve.over in OVER
    assert list(curve.places) == sorted(set(curve.places))
    curve.make(build(tiny, quick), SHORT[curve.over])()


def test_labels_reach_a_hundred_thousand():
    assert {curve.places[-1] for curve in CURVES if curve.over == "labels"} == {10_000, 100_000}


def test_an_evaluation_measures_all_labels(tiny, quick):
    (result,) = growth._evaluated(build(tiny, quick), 7)()
    assert (result.metrics.counts["images"], result.metrics.counts["classes"]) == (IMAGES, 7)


def test_a_quick_measurement_takes_the_first_places_of_a_small_model(tiny, quick, monkeypatch):
    made = []
    curve = Curve(
        "calls", "labels", (1, 10, 100, 1000), lambda built, place: made.append((built, place)) or (lambda: 0)
    )
    monkeypatch.setattr(growth, "CURVES", (curve,))
    monkeypatch.setattr(growth, "SMALL", tiny)
    found = list(measure(quick))
    assert [place for _, place in made] == [1, 10, 100]
    assert made[0][0].cfg.MODEL.BACKBONE == "ViT-tiny-8"
    assert [(one.case, one.at) for one in found if one.quantity == "time"] == [
        ("calls, by labels", place) for place in (1, 10, 100)
    ]


def test_what_would_fill_the_memory_is_left_out(tiny, quick, monkeypatch):
    curve = Curve("calls", "labels", (1, 10, 100), lambda built, place: lambda: None)  # noqa: ARG005
    monkeypatch.setattr(growth, "CURVES", (curve,))
    monkeypatch.setattr(growth, "SMALL", tiny)
    monkeypatch.setattr(growth, "peak", lambda run, setting: run() or 5.0)  # noqa: ARG005
    monkeypatch.setattr(growth, "free", lambda setting: 30.0)  # noqa: ARG005
    with pytest.warns(UserWarning, match="calls, 10 labels: would take about 50 MB, and 30 are free: left out"):
        assert {one.at for one in measure(quick)} == {1}


def test_what_takes_long_is_called_once(tiny, quick, monkeypatch):
    calls = []
    curve = Curve("calls", "labels", (1,), lambda built, place: lambda: calls.append(place))  # noqa: ARG005
    monkeypatch.setattr(growth, "CURVES", (curve,))
    monkeypatch.setattr(growth, "SMALL", tiny)
    monkeypatch.setattr(growth, "ENOUGH", -1.0)
    times = [one for one in measure(quick) if one.quantity == "time"]
    assert (len(calls), len(times[0].values)) == (1, 1)
    monkeypatch.setattr(growth, "ENOUGH", 1e9)
    times = [one for one in measure(quick) if one.quantity == "time"]
    assert len(times[0].values) == quick.repeats
