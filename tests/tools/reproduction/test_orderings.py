"""Whether the paper's orderings hold."""

import math

import pytest

from tools.reproduction.orderings import findings, judge, statements
from tools.reproduction.outcomes import collect
from tools.reproduction.report import report
from tools.reproduction.speed import KINDS, Speed


def seeds(*values):
    return dict(enumerate(values, start=1))


@pytest.mark.parametrize(
    ("better", "worse", "words"),
    [
        (seeds(3.0, 3.1, 2.9), seeds(1.0, 1.2, 0.9), "holds"),
        (seeds(3.0, 1.0, 2.0), seeds(1.0, 2.5, 2.0), "holds within the spread"),
        (seeds(3.0), seeds(1.0), "holds within the spread"),
        (seeds(2.0, 2.0), seeds(1.0, 1.0), "holds"),
        (seeds(1.0, 2.5), seeds(3.0, 1.0), "does not hold"),
        (seeds(1.0, 1.0), seeds(1.0, 1.0), "does not hold"),
        (seeds(1.0), seeds(2.0), "does not hold"),
        (seeds(1.0, 1.1), seeds(3.0, 3.2), "does not hold, beyond the spread"),
    ],
)
def test_a_statement_is_judged_by_the_differences_over_seeds(better, worse, words):
    assert judge(better, worse).words == words


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (2.1, "holds"),
        (1.9, "holds within the spread"),
        (-1.9, "does not hold"),
        (-2.1, "does not hold, beyond the spread"),
    ],
)
def test_beyond_the_spread_is_more_than_two_standard_errors(errors, words):
    mean = errors / math.sqrt(3)  # of three differences with a deviation of 1
    assert judge(seeds(mean - 1, mean, mean + 1), seeds(0.0, 0.0, 0.0)).words == words


def test_a_difference_counts_with_its_standard_error():
    verdict = judge(seeds(3.0, 2.0, 4.0), seeds(1.0, 1.0, 1.0))
    assert verdict.mean == pytest.approx(2.0)
    assert verdict.error == pytest.approx(1 / math.sqrt(3))


def test_differences_are_those_of_equal_seeds_however_far_seeds_are_apart():
    assert judge(seeds(10.0, 50.0, 90.0), seeds(9.0, 49.1, 88.9)).words == "holds"
    assert judge({1: 5.0, 2: 7.0}, {2: 6.0, 3: 90.0}).mean == 1.0
    assert judge({1: 5.0}, {2: 6.0}) is None
    assert judge({}, {1: 1.0}) is None


def test_what_has_no_seed_is_compared_with_every_one():
    assert judge(seeds(3.0, 3.1), {None: 1.0}).seeds == 2
    assert judge({None: 1.0}, seeds(3.0, 3.1)).mean == pytest.approx(-2.05)
    assert judge({None: 2.0}, {None: 1.0}).error is None


@pytest.fixture
def made(planned, filled):
    """The report of a table whose rows have the given F1@3, by run; those that are not named are not run."""

    def make(name, values, **facts):
        plan = planned(name, seeds=(1, 2))
        folder = filled(plan, lambda job: values.get(job.run, 0.0) + 0.01 * job.seed)
        for job in plan.jobs:
            if job.run not in values:
                (folder / job.file).unlink()
        return report(plan.tables[0], plan.dataset, collect([folder]), **facts)

    return make


def test_each_statement_has_a_row_with_a_verdict_for_each_protocol(made):
    text = statements(made("5", {"ram": 9.0, "ot": 8.0, "average": 8.5, "bipartite": 1.0}))
    assert text.splitlines()[2:] == [
        "| KCOT over OT | holds: +1.00 ± 0.00 | holds: +1.00 ± 0.00 |",
        "| OT over Average | does not hold, beyond the spread: -0.50 ± 0.00 | "
        "does not hold, beyond the spread: -0.50 ± 0.00 |",
        "| Average over Re-weight | - | - |",
        "| OT over Bipartite | holds: +7.00 ± 0.00 | - |",
    ]


def test_a_statement_about_one_protocol_says_nothing_of_the_other(made):
    text = statements(made("10", {"ram": 9.0, "mmc-image": 8.0}))
    assert "| MMC over MMC without batch | holds: +1.00 ± 0.00 |  |" in text
    assert "| MMC without batch over MMC |  | does not hold, beyond the spread: -1.00 ± 0.00 |" in text


def test_an_ordering_is_as_good_as_its_weakest_pair_and_what_is_open_is_said(made):
    found = findings(made("5", {"ram": 9.0, "ot": 8.0, "average": 7.0}))
    said = "**holds** (1 of 3 pairs are open)"
    assert found[0] == f"KCOT > OT > Average > Re-weight: ZSL {said}, GZSL {said}."
    assert found[1] == "OT > Bipartite: ZSL cannot be said, GZSL cannot be said."
    assert found[2] == "Not run yet: Bipartite, Re-weight."
    assert found[3].startswith("Bipartite: GZSL is left out: ")


def test_missing_seeds_are_said(planned, filled):
    plan = planned("11", seeds=(1, 2))
    folder = filled(plan)
    (folder / plan.jobs[0].file).unlink()
    found = findings(report(plan.tables[0], plan.dataset, collect([folder])))
    assert "RAM without SAA: 1 of the seeds are missing." in found


def test_of_a_table_that_was_not_run_nothing_else_is_said(made):
    assert findings(made("11", {})) == ["Nothing of it has been run yet."]


def test_the_row_of_the_benchmark_is_compared_with_the_last_of_a_sweep(made):
    text = statements(made("fig11", {"ram": 9.0, "last-1": 8.0, "last-3": 7.0, "last-4": 6.0}))
    assert "| last 2 over last 4 | holds: +3.00 ± 0.00 |" in text


def test_a_row_is_not_compared_with_itself(planned, filled):
    plan = planned("fig11", overrides=("MODEL.DEPTH_VISION", "last 4", "MODEL.DEPTH_TEXT", "last 4"))
    found = findings(report(plan.tables[0], plan.dataset, collect([filled(plan)])))
    assert found == ["last 4 > last 4: ZSL cannot be said, GZSL cannot be said."]


def test_the_row_of_the_benchmark_need_not_be_in_a_sweep(planned, filled):
    plan = planned("fig11", overrides=("MODEL.DEPTH_VISION", "last 4"))
    found = findings(report(plan.tables[0], plan.dataset, collect([filled(plan)])))
    assert found == ["@ram > last 4: ZSL cannot be said, GZSL cannot be said."]


def test_the_machine_of_measurements_is_said(made):
    speeds = {line.recipe: Speed(line.recipe, "a processor", dict.fromkeys(KINDS, (1.0, 3.0)))
              for line in made("12", {"ram": 9.0}).lines}  # fmt: skip
    said = findings(made("12", {"ram": 9.0}, speeds=speeds))
    assert said[-1] == "Speed and memory: batches of random images on a processor, mean and deviation of repetitions."


def test_orderings_of_a_table_with_levels_are_of_its_columns(planned, filled):
    plan = planned("missing", seeds=(1, 2))
    folder = filled(plan, lambda job: 40.0 + ("average" not in job.run))
    one = report(plan.tables[0], plan.dataset, collect([folder]))
    head, _, *rows = statements(one).splitlines()
    row = next(
        row for row in rows if row.startswith("| DualCoOp (modified) over DualCoOp (modified) without attention")
    )
    assert [cell.strip() for cell in head.split("|")[1:-1]] == ["the paper", "10 %", "50 %", "90 %", "single", "mean"]
    assert row.split("|")[-2].strip() == "holds: +1.00 ± 0.00"
    assert row.split("|")[2:6] == ["  "] * 4
    (folder / plan.tables[0].rows[1].jobs[0].file).unlink()
    said = findings(report(plan.tables[0], plan.dataset, collect([folder])))
    assert "DualCoOp (modified) > DualCoOp (modified) without attention: mean **holds**." in said
    assert "RAM, unknown left out: 1 of the runs are missing." in said
