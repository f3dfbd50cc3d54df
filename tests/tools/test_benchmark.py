"""The command: what is measured, kept, compared and asked for."""

import json

import pytest
import torch

from tools import benchmark
from tools.benchmark import ASIDE, WHAT, main
from tools.benchmarking import machine
from tools.benchmarking.measuring import Measurement

RATIO = "faster than plain reference"


@pytest.fixture
def made_up(monkeypatch):
    """Two benchmarks whose measurements are known."""
    values = {"time": [3.0, 1.0, 8.0], RATIO: [5.0]}

    def measure(setting):  # noqa: ARG001
        for quantity, numbers in values.items():
            yield Measurement("evaluation", quantity, "s", numbers)
        yield Measurement("evaluation", "plain reference", "s", [4.0])

    for name in list(WHAT):
        monkeypatch.delitem(WHAT, name)
    monkeypatch.setitem(WHAT, "evaluate", measure)
    monkeypatch.setitem(WHAT, "machine", lambda setting: iter([Measurement("matrices", "rate", "GFLOP/s", [9.0])]))  # noqa: ARG005
    monkeypatch.setattr(machine, "load", lambda: 0.1)
    return values


@pytest.mark.usefixtures("made_up")
def test_without_names_all_benchmarks_are_shown(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "evaluation  3 s (1 s to 8 s)" in out
    assert "matrices  rate  9 GFLOP/s" in out
    assert f"{torch.get_num_threads()} threads" in out


@pytest.mark.usefixtures("made_up")
def test_what_is_named_is_measured_and_nothing_else(capsys):
    assert main(["machine"]) == 0
    assert "evaluation" not in capsys.readouterr().out


def test_a_target_that_is_missed_is_named_and_the_code_is_1(made_up, capsys):
    made_up[RATIO] = [1.9]
    assert main(["evaluate", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"missed: evaluation: {RATIO}: 1.90 times, not 2"


def test_where_other_programs_run_the_processors_time_decides(made_up, monkeypatch, capsys):
    monkeypatch.setattr(machine, "load", lambda: 4.0)
    made_up[RATIO], made_up[f"{RATIO}, by processor time"] = [1.9], [2.1]
    assert main(["evaluate", "--device", "cpu"]) == 0
    assert "other programs run here (load 4.0)" in capsys.readouterr().out


def test_what_is_written_is_compared_with_later(made_up, tmp_path, capsys):
    old = tmp_path / "new folder" / "old.json"
    assert main(["--quick", "--json", str(old)]) == 0
    content = json.loads(old.read_text())
    assert content["about"]["environment"]["threads"] == torch.get_num_threads()
    assert content["about"]["command"] == "python tools/benchmark.py --quick"
    assert [row["what"] for row in content["measurements"]] == ["evaluate"] * 3 + ["machine"]
    made_up["time"] = [1.0, 4.5, 5.0]
    capsys.readouterr()
    assert main(["evaluate", "--compare", str(old)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("evaluation: time")]
    assert row.split()[-3:] == ["3", "+50.0", "%"]


def test_another_number_of_threads_is_mentioned(tmp_path, capsys, made_up):  # noqa: ARG001
    old = tmp_path / "old.json"
    main(["machine", "--json", str(old)])
    old.write_text(old.read_text().replace(f'"threads": {torch.get_num_threads()}', '"threads": 99'))
    main(["machine", "--compare", str(old)])
    assert capsys.readouterr().out.endswith("before: another number of threads\n")


@pytest.mark.usefixtures("made_up")
def test_what_was_done_before_an_error_is_kept(tmp_path, monkeypatch):
    def fail(setting):  # noqa: ARG001
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(WHAT, "machine", fail)
    assert main(["--json", str(tmp_path / "out.json")]) == 130
    assert len(json.loads((tmp_path / "out.json").read_text())["measurements"]) == 3


@pytest.mark.usefixtures("made_up")
def test_a_file_of_something_else_is_one_line_and_code_2(tmp_path, capsys):
    (tmp_path / "old.json").write_text("{}")
    assert main(["--compare", str(tmp_path / "old.json")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "old.json holds no measurements" in err


@pytest.mark.usefixtures("made_up")
def test_measurements_of_another_thing_are_refused(tmp_path, capsys):
    main(["machine", "--json", str(tmp_path / "old.json")])
    assert main(["evaluate", "--compare", str(tmp_path / "old.json")]) == 2
    assert "measures machine, not evaluate" in capsys.readouterr().err


def test_the_page_is_made_of_files_without_measuring(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "measured", None)
    assert main(["--write", str(tmp_path / "performance.md")]) == 0
    assert (tmp_path / "performance.md").read_text().startswith("# Performance\n")


def test_only_what_there_is_can_be_measured(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["nothing"])
    assert ended.value.code == 2
    assert "tagger" in capsys.readouterr().err


def test_what_takes_long_has_to_be_named():
    assert set(ASIDE[False]) < set(ASIDE[True]) < set(WHAT)
