"""The figure of growth."""

import pytest

from tools.benchmarking.files import of_rows
from tools.benchmarking.measuring import Measurement
from tools.benchmarking.picture import growth_figure


@pytest.fixture
def run():
    rows = [Measurement(f"{name}, by {over}", quantity, "", [n**power], n)
            for name, power in (("solver", 1), ("ladder", 2)) for over in ("labels", "images")
            for quantity in ("time", "memory") for n in (10, 100, 1000)]  # fmt: skip
    return of_rows({"load": 0.0}, [{"what": "growth", **row.row()} for row in rows])


def test_time_and_memory_are_drawn_over_each_thing_that_grows(run):
    charts = growth_figure(run).axes
    assert [chart.get_title() for chart in charts] == [
        f"{quantity} by {over}" for quantity in ("time", "memory") for over in ("labels", "regions", "images")
    ]
    assert [len(chart.lines) for chart in charts] == [2, 0, 2] * 2
    assert {(chart.get_xscale(), chart.get_yscale()) for chart in charts} == {("log", "log")}
    assert list(charts[0].lines[1].get_ydata()) == [1e2, 1e4, 1e6]


def test_a_legend_names_the_exponents(run):
    legend = growth_figure(run).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["solver: 1.00", "ladder: 2.00"]
