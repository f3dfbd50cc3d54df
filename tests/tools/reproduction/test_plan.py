"""Which runs are needed."""

import pytest

from configs import ConfigError
from tools.reproduction import plan as planning
from tools.reproduction import tables
from tools.reproduction.plan import Benchmark
from tools.reproduction.tables import Spec


def row(plan, name):
    return next(row for table in plan.tables for row in table.rows if row.name == name)


def known(plan, name):
    (job,) = row(plan, name).jobs
    return job.run, job.identity, job.file


def test_a_row_has_a_run_for_each_seed(planned):
    plan = planned("5", seeds=(1, 2))
    assert [job.title for job in row(plan, "OT").jobs] == ["ot, seed 1", "ot, seed 2"]
    assert row(plan, "OT").jobs[0].overrides[-4:] == ("MODEL.MATCHER", "ot", "SOLVER.SEED", "1")


def test_equal_configurations_are_one_run_for_all_tables(planned):
    plan = planned("5", "6", "9", "10", "11", "12", "fig11")
    names = [job.run for job in plan.jobs]
    assert len(names) == len(set(names)) == 23
    assert {known(plan, name) for name in ("4 prompts", "KCOT", "MMC", "last 2")} == {known(plan, "LLA + KCOT")}
    assert row(plan, "last 2").jobs[0].run == "ram"


def test_the_same_row_is_the_same_run_whichever_table_asks(planned):
    assert known(planned("9"), "4 prompts") == known(planned("5"), "KCOT")


def test_the_keys_of_a_row_count_more_than_those_of_the_command(planned):
    plan = planned("9", overrides=("MODEL.TEXT_CTX", "7", "SOLVER.MAX_EPOCHS", "1"))
    assert row(plan, "2 prompts").jobs[0].config["MODEL.TEXT_CTX"] == 2
    assert row(plan, "2 prompts").jobs[0].config["SOLVER.MAX_EPOCHS"] == 1


def test_a_matcher_that_needs_regions_is_tested_on_the_labels_it_can_answer(planned):
    bipartite = row(planned("5"), "Bipartite")
    assert bipartite.jobs[0].config["TEST.PROTOCOLS"] == ["ZSL"]
    assert bipartite.note == "GZSL is left out: it needs a region for each of 65 labels, an image has 64"


@pytest.mark.parametrize(
    ("file", "overrides", "note"),
    [("configs/nus.yml", (), "an image has 196 and there are 925 seen labels"),
     ("configs/emoji.yml", (), "an image has 64 and there are 925 seen labels"),
     ("configs/shapes.yml", ("INPUT.SIZE_TEST", "(32, 32)"), "an image has 16 and there are 17 unseen labels")],
)  # fmt: skip
def test_a_matcher_that_has_too_few_regions_is_left_out_with_the_reason(planned, file, overrides, note):
    bipartite = row(planned("5", file=file, overrides=overrides), "Bipartite")
    assert (bipartite.jobs, bipartite.note) == ((), f"needs a region for each label; {note}")


@pytest.mark.parametrize(("file", "overrides"), [("configs/coco.yml", ()), ("configs/custom.yml", ())])
def test_elsewhere_it_is_a_run_like_any_other(planned, file, overrides):
    bipartite = row(planned("5", file=file, overrides=overrides), "Bipartite")
    assert bipartite.note == ""
    assert "TEST.PROTOCOLS" not in bipartite.jobs[0].config


def test_what_is_not_trained_is_run_once(planned, monkeypatch):
    monkeypatch.setitem(tables.runs(), "ot", Spec("ot", settings=(("MODEL.METHOD", "zero-shot"),)))
    (job,) = row(planned("5", seeds=(1, 2, 3)), "OT").jobs
    assert (job.seed, job.title, job.file) == (None, "ot", f"ot-{job.recipe[:6]}.json")
    assert "SOLVER.SEED" not in job.overrides


def test_what_a_run_begins_with_is_run_before_it(planned, monkeypatch):
    monkeypatch.setitem(tables.runs(), "ot", Spec("ot", settings=(("MODEL.MATCHER", "ot"),), after="first"))
    monkeypatch.setitem(tables.runs(), "first", Spec("first", settings=(("SOLVER.MAX_EPOCHS", "1"),)))
    plan = planned("11", "5", seeds=(1, 2))
    titles = [job.title for job in plan.jobs]
    assert titles.index("first, seed 2") < titles.index("ot, seed 2")
    assert row(plan, "OT").jobs[1].after.title == "first, seed 2"


def test_files_of_other_configurations_stand_beside_each_other(planned):
    usual, shorter = (row(planned("5", overrides=words), "OT").jobs[0] for words in ((), ("SOLVER.MAX_EPOCHS", "1")))
    assert usual.file != shorter.file
    assert usual.file.startswith("ot-")
    assert usual.file.endswith("-seed-1.json")


def test_a_file_that_is_not_there_is_named(planned):
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        planned("5", file="configs/absent.yml")


def test_a_sweep_over_blocks_is_refused_where_the_tower_has_none(planned):
    with pytest.raises(ConfigError, match="^MODEL.BACKBONE RN101 is a ResNet, which has no blocks to sweep over"):
        planned("fig11", overrides=("MODEL.BACKBONE", "RN101"))


def test_a_benchmark_is_told_without_what_belongs_to_a_machine(tmp_path):
    made = Benchmark(
        (str(planning.ROOT / "configs" / "coco.yml"), str(tmp_path / "mine.yml")),
        ("DATASETS.ROOT_DIR", "/data/coco", "SOLVER.MAX_EPOCHS", "2", "SOLVER.SEED", "7"),
    ).portable
    assert made == Benchmark(("configs/coco.yml", "mine.yml"), ("SOLVER.MAX_EPOCHS", "2"))
    assert made.title == "coco, mine, SOLVER.MAX_EPOCHS 2"
    assert Benchmark(("configs/shapes.yml", "configs/missing/shapes.yml")).title == "shapes, missing/shapes"


def test_rows_of_a_table_with_levels_are_run_at_each_with_every_seed(planned):
    plan = planned("missing", seeds=(1, 2))
    ram = row(plan, "RAM, unknown left out")
    assert [(job.level, job.seed) for job in ram.jobs] == [
        (level, seed) for level in ("10 %", "50 %", "90 %", "single") for seed in (1, 2)
    ]  # fmt: skip
    assert [job.config["DATASETS.KNOWN"] for job in ram.jobs[::2]] == [0.1, 0.5, 0.9, 0.0]
    assert ram.jobs[0].title == "ram-10, seed 1"
    assert len({job.identity for job in ram.jobs}) == 8


def test_what_is_not_trained_is_one_run_for_all_levels(planned):
    plan = planned("missing", seeds=(1, 2))
    clip = row(plan, "CLIP").jobs
    assert [job.level for job in clip] == ["10 %", "50 %", "90 %", "single"]
    assert len({job.identity for job in clip}) == 1
    assert sum(job.seed is None for job in plan.jobs) == 1
