"""Files of measurements."""

import json

import pytest

from tools.benchmarking.files import BenchmarkError, collect, of_rows, read, require_common, write
from tools.benchmarking.measuring import Measurement

ABOUT = {"device": "cpu", "load": 0.1}


def rows(*names, what="train"):
    return [{"what": what, **Measurement(name, "time", "s", [2.0, 1.0, 4.0]).row()} for name in names]


def test_what_is_written_is_read(tmp_path):
    content = [*rows("a"), {"what": "growth", **Measurement("b", "memory", "MB", [3.0], 10_000).row()}]
    write(tmp_path / "run.json", ABOUT, content)
    run = read(tmp_path / "run.json")
    assert run == of_rows(ABOUT, content)
    assert [row.name for row in run.rows] == ["a: time", "b, 10,000: memory"]
    assert (run.rows[0].median, run.rows[0].least, run.rows[0].most) == (2.0, 1.0, 4.0)
    assert run.what == ("train", "growth")
    assert [row.case for row in run.of("growth")] == ["b"]


def test_a_file_has_a_line_for_each_measurement(tmp_path):
    write(tmp_path / "run.json", ABOUT, rows("a", "b"))
    lines = (tmp_path / "run.json").read_text().splitlines()
    assert [json.loads(line.strip(" ,"))["case"] for line in lines if '"what"' in line] == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [None, "", "[]", "{}", '{"format": "benchmark"}', '{"format": "x", "about": {}, "measurements": []}',
     '{"format": "benchmark", "about": {}, "measurements": [{"name": "of before"}]}'],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "run.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchmarkError, match=r"run\.json holds no measurements"):
        read(path)


def test_a_folder_is_read_by_names(tmp_path):
    write(tmp_path / "b.json", ABOUT, rows("b"))
    write(tmp_path / "a.json", ABOUT, rows("a"))
    assert [(name, run.rows[0].case) for name, run in collect(tmp_path).items()] == [("a", "a"), ("b", "b")]
    assert collect(tmp_path / "gone") == {}


@pytest.mark.parametrize(("load", "busy"), [(None, False), (0.4, False), (0.6, True)])
def test_a_machine_with_other_programs_is_busy(load, busy):
    assert of_rows({"load": load}, []).is_busy is busy


def test_only_measurements_of_the_same_benchmarks_are_compared():
    old = of_rows(ABOUT, rows("a"))
    require_common(old, ["train", "solver"], "old.json")
    with pytest.raises(BenchmarkError, match=r"old\.json measures train, not solver"):
        require_common(old, ["solver"], "old.json")
