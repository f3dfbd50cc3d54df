"""The tool that reproduces tables: with programs that stand for train.py and test.py, and once with these."""

import json
import os
import shutil
import signal
import threading
import time

import pytest

from tools import reproduce
from tools.reproduction import work
from tools.reproduction.plan import ROOT, Benchmark, plan


@pytest.fixture
def called(programs, tmp_path, capsys):
    """Runs the tool on the tiny benchmark; gives the exit code, stdout and stderr."""

    def call(*words, file="configs/tiny.yml"):
        line = ["--config_file", str(ROOT / file), "--out", str(tmp_path / "out"), "OUTPUT_DIR", str(programs)]
        return reproduce.main([*words, *line]), *capsys.readouterr()

    return call


def test_a_table_is_run_shown_and_written(called, tmp_path):
    code, out, _ = called("--table", "11", "--seeds", "2")
    assert code == 0
    assert "0 runs are finished, 6 to do, " in out
    assert "[6/6] " in out
    text = (tmp_path / "out" / "table-11.md").read_text()
    assert text in out
    assert "## Table 11: The two halves of LLA\n\nSeeds 1, 2.\n\n|" in text
    assert "| RAM | **55.5 ± 0.71** | **60.0 ± 0.00** | " in text
    assert "| RAM over RAM without TSS | does not hold: +0.00 ± 0.00 | " in text


def test_what_is_finished_is_not_run_again(called):
    called("--table", "11", "--seeds", "1")
    code, out, _ = called("--table", "11", "--seeds", "1")
    assert (code, "to do" in out) == (0, False)
    assert "| RAM | " in out


def test_a_dry_run_shows_commands_and_does_nothing(called, programs, tmp_path):
    code, out, _ = called("--table", "5", "--seeds", "1", "--dry-run")
    assert code == 0
    assert "table 5, Bipartite: needs a region for each label; an image has 16 and there are 48 seen labels" in out
    assert "ot, seed 1: to do\n  python " in out
    assert f"MODEL.MATCHER ot SOLVER.SEED 1 OUTPUT_DIR {programs}/reproduce/ot-" in out
    assert out.endswith("\n4 to do\n")
    assert not programs.exists()
    assert not (tmp_path / "out").exists()


def test_runs_that_are_not_asked_for_are_left_for_another_time(called):
    code, out, _ = called("--table", "5", "--seeds", "1", "--only", "ot,average")
    assert (code, "2 to do" in out, "Not run yet: KCOT, Re-weight." in out) == (0, True, True)
    out = called("--table", "5", "--seeds", "1", "--only", "ram", "--dry-run")[1]
    assert "ram, seed 1: to do\n  python " in out
    assert "reweight, seed 1: not asked for\n\n" in f"{out}\n"
    assert out.endswith("\n2 done, 1 to do, 1 not asked for\n")


def test_a_run_that_no_row_needs_is_refused(called):
    code, _, err = called("--table", "5", "--seeds", "1", "--only", "ot,none")
    assert (code, err) == (2, "error: --only none is no run of these tables: bipartite, ot, ram, average, reweight\n")


def test_a_dry_run_shows_what_is_done(called):
    called("--table", "11", "--seeds", "1")
    out = called("--table", "11", "--seeds", "2", "--dry-run")[1]
    assert "ram, seed 1: done\n\nno-" in out.replace("ram, seed 2", "no-")
    assert out.endswith("\n3 done, 3 to do\n") or out.endswith("\n3 to do, 3 done\n")


@pytest.mark.parametrize("file", ["configs/coco.yml", "configs/nus.yml"])
def test_real_benchmarks_can_be_planned_without_their_images(called, file):
    code, out, _ = called("--table", "5,fig11", "--seeds", "1", "--dry-run", file=file)
    assert code == 0
    assert "last-12, seed 1: to do" in out


def test_a_failed_run_is_named_with_its_log_and_the_others_go_on(called, programs, monkeypatch):
    monkeypatch.setenv("FAIL", "average")
    code, out, err = called("--table", "5", "--seeds", "1")
    (log,) = programs.glob("reproduce/average-*/seed-1/log.txt")
    assert code == 1
    assert err == f"failed: average, seed 1; log: {log}\n"
    assert f"average, seed 1 failed: nothing works (exit code 2); log: {log}" in out
    assert "Not run yet: Average." in out
    assert "| OT | 53.0 | **60.0** | " in out
    monkeypatch.delenv("FAIL")
    code, out, _ = called("--table", "5", "--seeds", "1")
    assert (code, "3 runs are finished, 1 to do" in out) == (0, True)


@pytest.mark.usefixtures("interruptible")
def test_a_killed_tool_goes_on_with_what_was_interrupted(called, programs, monkeypatch, capsys):
    monkeypatch.setenv("HANG", "ot")

    def interrupt():
        while not list(programs.glob("reproduce/ot-*/seed-1/*/log.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    assert called("--table", "5", "--seeds", "1", "--jobs", "1")[0] == 130
    capsys.readouterr()
    out = called("--table", "5", "--seeds", "1", "--dry-run")[1]
    assert "ot, seed 1: interrupted" in out
    assert "--resume " in out
    code, out, _ = called("--table", "5", "--seeds", "1")  # a run that hangs goes on when it is resumed
    assert (code, "ot, seed 1 begins" in out) == (0, True)
    assert len(list(programs.glob("reproduce/ot-*/seed-1/*/checkpoint.pth"))) == 1


def test_results_of_another_machine_are_not_run_again(called, programs):
    called("--table", "11", "--seeds", "1")
    shutil.rmtree(programs)
    assert "to do" not in called("--table", "11", "--seeds", "1")[1]
    assert not programs.exists()


def test_the_page_is_written_from_the_result_files(called, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce.tables, "NAMES", ("11",))
    called("--table", "11", "--seeds", "1")
    (tmp_path / "docs").mkdir()
    (tmp_path / "out").rename(tmp_path / "docs" / "results")
    assert reproduce.main(["--write", str(tmp_path / "docs" / "results.md")]) == 0
    assert "### Table 11: " in (tmp_path / "docs" / "results.md").read_text()
    assert (tmp_path / "docs" / "figures" / "results" / "tiny-11.png").is_file()


@pytest.mark.parametrize(("words", "why"), [
    (["--table", "8"], "there is no table '8'"), (["--table", "5", "--seeds", "0"], "have to be 1 or more"),
    (["--table", "5", "--jobs", "0"], "have to be 1 or more"), (["--table", "5", "MODEL.X", "1"], "no key MODEL.X"),
    (["--table", "5", "MODEL.TSS"], "'MODEL.TSS' has no value"), (["--table", ","], "names no table"),
    (["--table", "5", "SOLVER.INIT", "runs/x"], "SOLVER.INIT is each row's own"),
    (["--table", "5", "--config_file", "configs/tiny.yml", "--out", "/dev/null/x"], "cannot make the folder"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_code_2(capsys, words, why):
    assert reproduce.main(words) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1


def test_something_has_to_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        reproduce.main([])
    assert "name a --table, or a page to --write" in capsys.readouterr().err


def test_runs_are_spread_over_gpus_unless_one_is_named(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(reproduce.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(reproduce.torch.cuda, "device_count", lambda: 2)
    assert [reproduce._gpus(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [["0", "1"], ["0", "1"], [], []]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert reproduce._gpus("auto") == ["3", "5"]


class Board:
    """Stands for Weights & Biases."""

    tables: list = []

    def __init__(self, folder, **facts):
        self.folder, self.facts = folder, facts

    def table(self, name, columns, rows):
        Board.tables.append((self, name, columns, rows))

    def finish(self, *, failed):
        assert not failed


def test_tables_are_logged_where_that_is_wanted(called, monkeypatch):
    monkeypatch.setattr("engine.dashboard.Dashboard", Board)
    called("--table", "11", "--seeds", "1")
    assert Board.tables == []
    called("--table", "11", "--seeds", "1", "WANDB", "true")
    ((board, name, columns, rows),) = Board.tables
    assert board.folder.is_dir()
    assert board.facts["job"] == "reproduce"
    assert (name, columns[:2], rows[2][:2]) == ("test/Table 11", ["row", "ZSL F1@3"], ["RAM", "55.0"])


@pytest.mark.slow
def test_a_table_of_the_tiny_benchmark_is_reproduced_by_train_and_test(made_up, tmp_path, capsys, monkeypatch):
    """Two of three rows are there from another machine; the third is made, from another folder than the project's."""
    monkeypatch.chdir(tmp_path)
    words = ("DATASETS.SUBSET", "12", "SOLVER.MAX_EPOCHS", "1")
    planned = plan(["11"], Benchmark((str(ROOT / "configs" / "tiny.yml"),), words), [1])
    job = planned.jobs[0]
    for other in planned.jobs[1:]:
        content = made_up(other, {"zero-shot CLIP": 1.0, "RAM": 2.0})
        work.write(tmp_path / "out", other.file, {**content, "lists": {}, "clip": None})
    line = ["--table", "11", "--seeds", "1", "--config_file", str(ROOT / "configs" / "tiny.yml"),
            "--out", str(tmp_path / "out"), *words, "OUTPUT_DIR", str(tmp_path / "runs")]  # fmt: skip
    assert reproduce.main(line) == 0
    assert "2 runs are finished, 1 to do" in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / job.file).read_text())
    assert content["identity"] == job.identity
    assert content["results"].keys() == {"zero-shot CLIP", "RAM", "RAM (EMA)"}
    assert content["results"]["RAM"]["ZSL"]["images"] == 12
    assert content["curve"]["loss"]
    assert content["seconds"] > 0
    assert str(tmp_path) not in json.dumps(content)
    assert reproduce.main(line) == 0
    assert "to do" not in capsys.readouterr().out
