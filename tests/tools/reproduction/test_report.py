"""A table as it came out."""

import json

import pytest

from tools.reproduction.outcomes import collect
from tools.reproduction.report import ReportError, cell, markdown, report
from tools.reproduction.speed import KINDS, Speed


def lines(made):
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in markdown(made).splitlines()]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


@pytest.fixture
def shown(planned, filled):
    def show(name, value=None, *, file="configs/shapes.yml", seeds=(1, 2), **facts):
        plan = planned(name, file=file, seeds=seeds)
        return report(plan.tables[0], plan.dataset, collect([filled(plan, value)]), **facts)

    return show


def test_cells_are_mean_and_sample_deviation():
    assert cell({1: 60.0, 2: 61.5, 3: 64.25}) == "61.9 ± 2.16"
    assert (cell({1: 60.0}), cell({}), cell({None: 1.0}, bold=True)) == ("60.0", "-", "**1.0**")


def test_the_best_of_a_column_is_bold_and_so_is_its_equal(shown):
    values = {"ram": 60.04, "ot": 59.96, "average": 55.0, "reweight": 50.0, "bipartite": 70.0}
    made = lines(shown("5", lambda job: values[job.run]))
    assert [name for name, row in made.items() if "**" in row["GZSL F1@3"]] == ["OT", "KCOT"]
    assert made["Bipartite"]["ZSL F1@3"] == "**70.0 ± 0.00**"
    assert made["Bipartite"]["GZSL F1@3"] == "-"


def test_the_papers_numbers_stand_beside_those_of_its_benchmark(shown):
    made = lines(shown("5", file="configs/coco.yml"))
    assert {name: value for name, value in made["KCOT"].items() if name.startswith("paper")} == {
        "paper, COCO ZSL F1@3": "54.5", "paper, COCO GZSL F1@3": "67.3"
    }  # fmt: skip


def test_another_benchmark_has_those_of_nus_wide_and_coco_beside_it(shown):
    made = lines(shown("5"))
    assert made["OT"]["paper, NUS GZSL F1@3"] == "22.3"
    assert made["Bipartite"]["paper, NUS ZSL F1@3"] == "-"
    assert made["Bipartite"]["paper, COCO ZSL F1@3"] == "51.9"


def test_speed_and_memory_are_shown_where_they_are_asked_for(shown):
    empty = shown("12")
    speeds = {line.recipe: Speed(line.recipe, "a processor", dict.fromkeys(KINDS, (1.0 + k, 3.0 + k)))
              for k, line in enumerate(empty.lines)}  # fmt: skip
    made = lines(shown("12", speeds=speeds))
    assert made["Baseline"]["train images/s"] == "2.0 ± 1.41"
    assert made["Baseline"]["test GB"] == "**2.0 ± 1.41**"
    assert made["Baseline + LLA + KCOT"]["train images/s"] == "**4.0 ± 1.41**"
    assert made["Baseline"]["paper, NUS train GB"] == "5.9"
    assert shown("5", speeds=speeds).machine == ""


def test_speeds_of_two_machines_are_refused(shown):
    recipes = [line.recipe for line in shown("12").lines]
    speeds = {r: Speed(r, f"machine {k}", dict.fromkeys(KINDS, (1.0,))) for k, r in enumerate(recipes[:2])}
    with pytest.raises(ReportError, match="were measured on machine 0; machine 1"):
        shown("12", speeds=speeds)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"lists": {"GZSL": {"images": 5}}}, "images or labels for GZSL"), ({"clip": "another"}, "CLIP")],
)
def test_results_on_something_else_are_refused(planned, filled, change, what):
    plan = planned("11")
    folder = filled(plan)
    path = folder / plan.jobs[1].file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ReportError, match=f"{path.name} has other {what} than "):
        report(plan.tables[0], plan.dataset, collect([folder]))


def test_raw_weights_are_shown_if_they_are_asked_for(planned, filled):
    plan = planned("11")
    folder = filled(plan)
    for job in plan.jobs:
        content = json.loads((folder / job.file).read_text())
        content["results"]["RAM (EMA)"] = {"ZSL": {"F1@3": 1.0, "mAP": 1.0}}
        (folder / job.file).write_text(json.dumps(content))
    values = [report(plan.tables[0], plan.dataset, collect([folder]), weights=w).lines[0].values["ZSL F1@3"]
              for w in ("ema", "raw")]  # fmt: skip
    assert values[0] == {1: 1.0}
    assert values[1][1] > 50


def test_a_report_knows_its_seeds_and_whether_there_is_anything(shown):
    assert (shown("11").spread, shown("11").is_empty) == ("Seeds 1, 2.", False)


def test_rows_with_more_seeds_than_the_others_are_named(planned, filled):
    plan = planned("11", seeds=(1, 2))
    folder = filled(plan)
    outcomes = collect([folder])
    some = {key: one for key, one in outcomes.items() if one.content["run"] == "ram" or one.content["seed"] == 1}
    assert report(plan.tables[0], plan.dataset, some).spread == "One seed: no spread is known; RAM: 2 seeds."


def test_a_table_with_levels_has_a_column_for_each_and_the_mean_of_seeds_that_have_all(planned, filled):
    plan = planned("missing", seeds=(1, 2))
    at = {"10": 50.0, "50": 60.0, "90": 70.0, "single": 40.0}
    folder = filled(plan, lambda job: at[job.run.rpartition("-")[2]] + job.seed if job.seed else 45.0)
    (absent,) = (job for job in plan.jobs if (job.run, job.seed) == ("dualcoop-partial-90", 2))
    (folder / absent.file).unlink()
    one = report(plan.tables[0], plan.dataset, collect([folder]))
    assert one.columns == ("10 %", "50 %", "90 %", "single", "mean")
    made = lines(one)
    ram, partial = made["RAM, unknown left out"], made["DualCoOp (modified)"]
    # Interpolated mAP is 1 more in these files, and that of a single positive is plain.
    assert [ram[name].strip("*").partition(" ")[0] for name in one.columns] == ["52.5", "62.5", "72.5", "41.5", "62.5"]
    assert (partial["10 %"], partial["90 %"], partial["mean"]) == ("**52.5 ± 0.71**", "72.0", "62.0")
    assert made["CLIP"]["mean"] == "46.0"
    assert partial["paper, COCO 10 %"] == "81.5"
    assert made["DualCoOp (modified) without attention"]["paper, VOC2007 mean"] == "90.8"
