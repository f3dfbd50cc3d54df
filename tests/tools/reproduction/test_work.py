"""Jobs to programs."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tools.reproduction import tables
from tools.reproduction.runner import run_all
from tools.reproduction.tables import Spec
from tools.reproduction.work import DONE, OPEN, RESUMED, Work


@pytest.fixture
def work(planned, tmp_path, programs):
    """What is left of some tables, with an empty OUTPUT_DIR at first."""

    def make(*names, seeds=(1,), out=tmp_path / "out", **facts):
        plan = planned(*names, file="configs/tiny.yml", seeds=seeds, **facts)
        return Work(plan, programs, out, tmp_path / "committed")

    return make


def run(made):
    """Runs what is left in this process's environment; the failures."""
    return run_all(made.tasks(), [dict(os.environ)] * 3, lambda *_: None)


def statuses(made):
    return {title: status for title, status, _ in made.commands()}


def test_every_open_job_is_trained_and_tested_and_leaves_a_result_file(work, tmp_path):
    made = work("11")
    assert set(statuses(made).values()) == {OPEN}
    assert run(made) == []
    assert set(statuses(made).values()) == {DONE}
    contents = [json.loads(path.read_text()) for path in (tmp_path / "out").iterdir()]
    assert sorted(content["run"] for content in contents) == ["no-saa", "no-tss", "ram"]
    assert {content["clip"] for content in contents} == {None}  # of random weights
    assert all(content["seconds"] == 2.0 and content["memory_gb"]["host"] > 0 for content in contents)
    assert contents[0]["curve"]["loss"] == [[2, 3.0]]


def test_what_is_finished_is_found_again_without_its_files(work, tmp_path):
    run(work("11"))
    shutil.rmtree(tmp_path / "out")
    made = work("11")
    assert made.open_jobs == []
    made.take_over()
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert {outcome.content["memory_gb"]["host"] for outcome in made.outcomes.values()} == {None}


def test_who_has_the_result_files_needs_no_runs(work, tmp_path, programs):
    run(work("11"))
    (tmp_path / "out").rename(tmp_path / "committed")
    shutil.rmtree(programs)
    made = work("11")
    made.take_over()
    assert made.open_jobs == []
    assert not (tmp_path / "out").exists()


def test_result_files_of_this_machine_are_brought_where_they_are_wanted(work, tmp_path, programs):
    run(work("11", out=programs / "reproduce" / "results"))
    work("11").take_over()
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_another_seed_or_table_needs_its_own_runs_alone(work):
    run(work("11"))
    assert [job.title for job in work("11", seeds=(1, 2)).open_jobs] == [
        "no-saa, seed 2",
        "no-tss, seed 2",
        "ram, seed 2",
    ]
    assert "ram, seed 1" not in [job.title for job in work("10").open_jobs]


def test_a_run_that_was_killed_goes_on(work):
    made = work("11")
    job = made.plan.jobs[0]
    run(made)
    run_folder = made.finished[job.identity].run
    shutil.rmtree(run_folder / "test")
    (made.out / job.file).unlink()
    moved = run_folder.parent.rename(run_folder.parent.with_name("elsewhere")) / run_folder.name
    made = work("11")
    assert statuses(made)[job.title] == RESUMED
    train, test = made.steps(job)
    assert train[-2:] == ["--resume", str(moved)]
    assert "--resume" not in test
    assert run(made) == []
    assert [outcome.content["seconds"] for outcome in made.outcomes.values()].count(4.0) == 1  # both parts


def test_finished_runs_may_lie_anywhere_in_the_output_folder_interrupted_ones_in_the_tools_own(work, programs):
    made = work("11")
    run(made)
    first, second, _ = (made.finished[job.identity].run for job in made.plan.jobs)
    for job in made.plan.jobs:
        (made.out / job.file).unlink()
    first.parent.rename(programs / "by-hand")
    shutil.rmtree(second / "test")
    second.parent.rename(programs / "under-way")  # perhaps by somebody else
    assert list(statuses(work("11")).values()) == [DONE, OPEN, DONE]


def test_what_is_not_trained_is_only_tested(work, monkeypatch):
    monkeypatch.setitem(tables.runs(), "no-saa", Spec("no-saa", settings=(("MODEL.METHOD", "zero-shot"),)))
    made = work("11")
    job = made.plan.jobs[0]
    (step,) = made.steps(job)
    assert step[1].endswith("test.py")
    assert run(made) == []
    outcome = made.outcomes[job.identity]
    assert (outcome.path.name, outcome.content["seed"], outcome.content["clip"]) == (job.file, None, None)
    assert outcome.content["seconds"] > 0


@pytest.fixture
def staged(monkeypatch):
    """Makes a row of Table 11 begin with another run."""
    monkeypatch.setitem(tables.runs(), "no-saa", Spec("no-saa", settings=(("MODEL.MATCHER", "ot"),), after="first"))
    monkeypatch.setitem(tables.runs(), "first", Spec("first", settings=(("MODEL.MATCHER", "average"),)))


@pytest.mark.usefixtures("staged")
def test_a_second_stage_begins_with_the_run_of_the_first(work):
    made = work("11")
    first, second, *_ = made.plan.jobs
    assert "<first, seed 1>" in made.steps(second)[0]
    assert run(made) == []
    words = made.steps(second)[0]
    assert words[words.index("SOLVER.INIT") + 1] == str(made.finished[first.identity].run)
    assert json.loads((made.out / second.file).read_text())["after"] == first.identity
    assert work("11").open_jobs == []


@pytest.mark.usefixtures("staged")
def test_a_first_stage_is_made_again_where_its_weights_are_needed(work, programs):
    made = work("11")
    run(made)
    first, second, *_ = made.plan.jobs
    shutil.rmtree(programs)
    assert work("11").open_jobs == []
    (made.out / second.file).unlink()
    assert [job.title for job in work("11").open_jobs] == ["first, seed 1", "no-saa, seed 1"]


@pytest.mark.usefixtures("staged")
def test_without_its_first_stage_a_second_one_fails(work, monkeypatch):
    monkeypatch.setenv("FAIL", "average")
    assert [failure.name for failure in run(work("11"))] == ["first, seed 1", "no-saa, seed 1"]


def test_a_run_without_results_is_a_failure(work, programs):
    Path(programs.parent / "test.py").write_text("pass")
    said = {failure.name: failure.why for failure in run(work("11"))}
    assert len(said) == 3
    assert "holds no results of no-saa, seed 1, though it ended well" in said["no-saa, seed 1"]


def test_speeds_are_measured_once_and_alone(work, tmp_path):
    made = work("12")
    assert [task.name for task in made.tasks() if task.alone] == [
        "speed of baseline",
        "speed of average",
        "speed of ram",
    ]
    assert run(made) == []
    assert {speed.values["test GB"] for speed in made.speeds.values()} == {(1.0, 2.0)}
    assert len(list((tmp_path / "out").glob("speed-*.json"))) == 3
    assert work("12").tasks() == []
