"""The runs of this machine."""

import json
import os
import threading

import pytest

from configs import flat, load_config
from tools.reproduction import local
from tools.reproduction.identity import differing, digest
from tools.reproduction.local import exclusive, finished, identity_of, interrupted


def config(*overrides):
    return load_config("configs/tiny.yml", overrides)


@pytest.fixture
def run(tmp_path):
    """Writes the folder of a run, with a test of it."""

    def write(name, *overrides, epoch=3, test=None, date="1", checkpoint=True):
        folder = tmp_path / name
        place = folder / "test" / f"20260101-00000{date}"
        place.mkdir(parents=True)
        (folder / "config.yml").write_text(config(*overrides).dump())
        (folder / "checkpoint.pth").write_text("x")
        about = {
            "config": flat(config(*(overrides if test is None else test))),
            "date": date,
            **dict.fromkeys(("lists", "labels", "environment"), {}),
            "checkpoint": {"file": "checkpoint.pth", "run": folder.name, "epoch": epoch} if checkpoint else None,
        }
        (place / "results.json").write_text(json.dumps({"about": about, "results": {"RAM": {}}}))  # fmt: skip
        return folder

    return write


def identity(*overrides):
    return digest(differing(config(*overrides)))


def test_a_run_is_known_by_its_configuration_not_by_its_folder(run, tmp_path):
    folder = run("anything/at-all", "MODEL.MATCHER", "ot")
    assert finished(tmp_path) == {identity("MODEL.MATCHER", "ot"): (folder, finished(tmp_path).popitem()[1].results)}


def test_of_several_tests_the_newest_counts(run, tmp_path):
    run("a", date="1")
    newest = run("b", date="2")
    assert finished(tmp_path)[identity()].run == newest


@pytest.mark.parametrize(
    "facts",
    [{"epoch": 2}, {"test": ("MODEL.OT_REG", "0.3")}, {"test": ("TEST.SPLIT", "val")}],
    ids=["unfinished", "tested otherwise", "another split"],
)
def test_what_is_no_test_of_a_finished_run_does_not_count(run, tmp_path, facts):
    run("a", **facts)
    assert finished(tmp_path) == {}


def test_evaluations_in_training_are_no_tests(run, tmp_path):
    folder = run("a")
    path = next(folder.rglob("results.json"))
    content = json.loads(path.read_text())
    del content["about"]["checkpoint"]["file"]
    path.write_text(json.dumps(content))
    assert finished(tmp_path) == {}


def test_the_best_checkpoint_of_a_run_may_be_of_any_epoch(run, tmp_path):
    run("a", "SOLVER.SELECT", "best", epoch=1)
    assert finished(tmp_path).keys() == {identity("SOLVER.SELECT", "best")}


def test_a_test_without_a_checkpoint_is_of_an_untrained_method(run, tmp_path):
    run("zero-shot", "MODEL.METHOD", "zero-shot", checkpoint=False)
    assert finished(tmp_path)[identity("MODEL.METHOD", "zero-shot")].run is None


def test_a_run_whose_checkpoint_was_removed_does_not_count(run, tmp_path):
    (run("a") / "checkpoint.pth").unlink()
    assert finished(tmp_path) == {}


@pytest.mark.parametrize(("path", "value"), [
    (("results",), {"RAM": {"ZSL": {"mAP": None}}}), (("results",), []), (("about", "environment"), ...),
    (("about", "config", "SOLVER.SELECT"), ...), (("about", "checkpoint"), {}),
])  # fmt: skip
def test_damaged_results_do_not_count(run, tmp_path, path, value):
    file = next(run("a").rglob("results.json"))
    content = place = json.loads(file.read_text())
    *parents, last = path
    for key in parents:
        place = place[key]
    place[last] = value
    if value is ...:
        del place[last]
    file.write_text(json.dumps(content))
    assert finished(tmp_path) == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"about": {}}'])
def test_other_files_of_that_name_are_left_alone(run, tmp_path, text):
    next(run("a").rglob("results.json")).write_text(text)
    assert finished(tmp_path) == {}


def test_a_run_that_began_with_another_belongs_to_it(run, tmp_path):
    first = run("first", "SOLVER.SEED", "9")
    second = run("second", "SOLVER.INIT", str(first))
    assert identity_of(second) == digest(differing(config()), identity_of(first))
    (first / "config.yml").unlink()
    assert identity_of(second) is None
    assert finished(tmp_path) == {}


def test_a_run_of_another_version_is_left_alone(run, tmp_path):
    folder = run("a")
    (folder / "config.yml").write_text("MODEL:\n  GONE: 1\n")
    assert finished(tmp_path) == interrupted(tmp_path) == {}


def test_of_several_interrupted_runs_the_newest_goes_on(run, tmp_path):
    old, new = run("b"), run("a")
    os.utime(old / "checkpoint.pth", (1, 1))
    assert interrupted(tmp_path) == {identity(): new}


def test_a_second_start_waits_for_the_first(tmp_path, capsys):
    done = []

    def second():
        with exclusive(tmp_path / "new"):
            done.append("second")

    with exclusive(tmp_path / "new"):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.3)
        done.append("first")
    other.join()
    assert done == ["first", "second"]
    assert "waiting for them to end" in capsys.readouterr().out


def test_what_children_inherit_holds_the_place(tmp_path):
    with exclusive(tmp_path) as held:
        kept = os.dup(held)
    with open(tmp_path / ".lock") as file, pytest.raises(BlockingIOError):
        local.fcntl.flock(file, local.fcntl.LOCK_EX | local.fcntl.LOCK_NB)
    os.close(kept)
