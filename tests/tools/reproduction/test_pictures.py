"""Figures of tables."""

import pytest

from tools.reproduction.outcomes import collect
from tools.reproduction.pictures import result_figure, training_figure
from tools.reproduction.report import report


@pytest.fixture
def made(planned, filled):
    def make(name, value=None, seeds=(1, 2), change=None):
        plan = planned(name, seeds=seeds)
        outcomes = collect([filled(plan, value)])
        for outcome in outcomes.values():
            if change:
                change(outcome.content)
        return report(plan.tables[0], plan.dataset, outcomes)

    return make


def test_a_row_has_a_bar_as_long_as_its_mean_with_its_deviation(made):
    figure = result_figure(made("5", lambda job: 60.0 + job.seed + len(job.run)))
    zsl, gzsl = figure.axes
    assert [bar.get_width() for bar in zsl.patches] == [70.5, 63.5, 64.5, 68.5, 69.5]
    assert [text.get_text() for text in gzsl.texts] == ["63.5", "64.5", "68.5", "69.5"]
    (spread,) = zsl.collections
    assert spread.get_segments()[0][1][0] - spread.get_segments()[0][0][0] == pytest.approx(2**0.5)


def test_a_row_without_a_protocol_keeps_its_place(made):
    zsl, gzsl = result_figure(made("5")).axes
    assert [text.get_text() for text in zsl.get_yticklabels()][0] == "Bipartite"
    assert [bar.get_y() for bar in gzsl.patches] == [bar.get_y() for bar in zsl.patches][1:]


def test_an_axis_that_is_cut_says_so(made):
    assert result_figure(made("11")).axes[0].get_xlabel() == "axis does not begin at 0"
    assert result_figure(made("11", lambda job: job.seed / 100, seeds=(1,))).axes[0].get_xlabel() == ""


def test_a_sweep_is_a_curve(made):
    chart = result_figure(made("9")).axes[0]
    assert len(chart.lines[0].get_xdata()) == 6
    assert chart.get_xticklabels()[2].get_text() == "4\nprompts"


def test_the_bars_of_a_protocol_that_nothing_was_tested_on_are_missing(made):
    def only_zsl(content):
        for row in content["results"].values():
            row.pop("GZSL", None)

    assert len(result_figure(made("11", change=only_zsl)).axes[1].patches) == 0


def test_curves_are_means_over_seeds_at_the_steps_that_all_have(made):
    def change(content):
        content["curve"]["loss"] = [[step, content["seed"]] for step in range(1, 3 + content["seed"])]
        content["curve"]["evaluated"] = [
            {"epoch": 2, "method": m, "protocol": p, "F1@3": 10.0 * content["seed"]} for m in ("RAM", "another")
            for p in ("ZSL", "GZSL")
        ]  # fmt: skip

    losses, zsl, _ = training_figure(made("11", change=change)).axes
    assert [line.get_label() for line in losses.lines] == ["RAM without SAA", "RAM without TSS", "RAM"]
    assert list(losses.lines[0].get_xdata()) == [1, 2, 3]
    assert list(losses.lines[0].get_ydata()) == [1.5, 1.5, 1.5]
    assert list(zsl.lines[0].get_ydata()) == [15.0]


def test_losses_of_other_scales_are_drawn_on_a_logarithmic_one(made):
    def change(content):
        content["curve"]["loss"] = [[1, 1000.0 if content["run"] == "ram" else 1.0]]

    assert training_figure(made("11")).axes[0].get_yscale() == "linear"
    assert training_figure(made("11", change=change)).axes[0].get_yscale() == "log"


def test_without_a_training_there_is_no_figure_of_it(made):
    assert training_figure(made("11", change=lambda content: content["curve"].update(loss=[]))) is None
