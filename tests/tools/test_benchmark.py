"""Measurements: what is counted, how they are kept and compared."""

import json
import statistics
from types import SimpleNamespace

import pytest
import torch

from datasets import shapes
from tools import benchmark
from tools.benchmark import WHAT, Measurement, Model, Setting, in_turn, main, peak_memory, random_labels, untrained

CPU = torch.device("cpu")
TINY = Model("tiny", "tiny.yml", ("MODEL.TEMPERATURE", "auto"), 4)


@pytest.fixture
def made_up(monkeypatch):
    """A benchmark whose measurements are known."""
    values = {"speed": [3.0, 1.0, 8.0]}

    def measure(setting):  # noqa: ARG001
        for name, numbers in values.items():
            yield Measurement(name, "images/s", numbers)

    monkeypatch.setitem(WHAT, "made-up", measure)
    return values


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_table_shows_median_and_extremes(made_up, capsys):  # noqa: ARG001
    assert main(["made-up"]) == 0
    head, _, row, *_ = capsys.readouterr().out.splitlines()
    assert cells(head) == ["measurement", "unit", "median", "min", "max"]
    assert cells(row) == ["speed", "images/s", "3", "1", "8"]


def test_what_is_written_is_compared_with_later(made_up, tmp_path, capsys):
    old = tmp_path / "old.json"
    assert main(["made-up", "--json", str(old)]) == 0
    content = json.loads(old.read_text())
    assert content["what"] == "made-up"
    assert content["environment"]["threads"] == torch.get_num_threads()
    (row,) = content["measurements"]
    assert (row["name"], row["median"], row["values"]) == (
        "speed",
        statistics.median(made_up["speed"]),
        [3.0, 1.0, 8.0],
    )
    made_up["speed"], made_up["another"] = [1.0, 4.5, 5.0], [1.0]
    capsys.readouterr()
    assert main(["made-up", "--compare", str(old)]) == 0
    head, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert cells(head)[-2:] == ["before", "change"]
    assert cells(first)[-2:] == ["3", "+50.0 %"]
    assert cells(second)[-2:] == ["-", "-"]


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"format": "benchmark"}', '{"format": "x", "measurements": []}']
)
def test_a_file_of_something_else_is_one_line_and_code_2(made_up, tmp_path, capsys, text):  # noqa: ARG001
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    assert main(["made-up", "--compare", str(path)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{path} holds no measurements" in err


def test_measurements_of_another_thing_are_refused(made_up, tmp_path, capsys):  # noqa: ARG001
    old = tmp_path / "old.json"
    main(["made-up", "--json", str(old)])
    old.write_text(old.read_text().replace('"what": "made-up"', '"what": "another"'))
    assert main(["made-up", "--compare", str(old)]) == 2
    assert "measures another, not made-up" in capsys.readouterr().err


@pytest.mark.parametrize(("quick", "rounds"), [(True, 3), (False, 5)])
def test_calls_are_timed_in_turn_and_the_first_round_is_not_counted(monkeypatch, quick, rounds):
    order, clock = [], {"wall": 0.0, "processor": 0.0}
    known = SimpleNamespace(perf_counter=lambda: clock["wall"], process_time=lambda: clock["processor"])
    monkeypatch.setattr(benchmark, "time", known)

    def call(name, seconds):
        order.append(name)
        clock["wall"] += seconds + 100 * (len(order) <= 2)
        clock["processor"] += 2 * seconds

    took = in_turn([lambda: call("first", 0.5), lambda: call("second", 4.0)], Setting(CPU, quick=quick))
    assert order == ["first", "second"] * (rounds + 1)
    assert took == [[(0.5, 1.0)] * rounds, [(4.0, 8.0)] * rounds]


def test_the_memory_of_a_call_is_counted_each_time_and_that_of_before_is_not():
    held = torch.ones(30_000_000)  # 120 MB
    measured = [m.values for m in peak_memory("x", lambda: torch.ones(50_000_000).sum(), Setting(CPU, quick=True))]
    if not measured:
        pytest.skip("this system does not say")
    assert len(measured[0]) == 3
    assert all(190 < value < 290 for value in measured[0])
    assert held.sum() > 0


def test_a_model_without_a_training_tags():
    made = untrained(TINY, CPU)
    asked = random_labels(made, 7)
    assert (made.calibrated, asked.text.shape[0], made.seen) == (True, 7, shapes.SEEN)
    torch.testing.assert_close(asked.text.norm(dim=1), torch.ones_like(asked.text[:, 0]))
    assert asked.text.dtype == made.labels(["x"]).text.dtype
    (tags,) = made.tag([shapes.scene("test", 0).image], asked)
    assert len(tags.labels) == 7


def test_the_tagger_is_measured_beside_the_bare_tower_and_with_many_labels(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, "MODELS", (TINY, TINY))
    monkeypatch.setattr(benchmark, "MANY", (10, 300))
    out = tmp_path / "out.json"
    assert main(["tagger", "--quick", "--json", str(out), "--device", "cpu"]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())["measurements"]}
    timed = {name: row for name, row in rows.items() if row["unit"] != "MB"}
    what = "tiny, 4 pictures: "
    assert list(timed) == [
        *(what + name for name in ("bare image tower", "tag, 65 labels", "index")),
        *(what + name for name in ("tag, of the bare tower's speed", "the same by processor time")),
        "tiny, 1 picture, 10 labels: tag", "tiny, 1 picture, 300 labels: tag",
    ]  # fmt: skip
    bare, tagged = (rows[what + name]["values"] for name in ("bare image tower", "tag, 65 labels"))
    assert rows[what + "tag, of the bare tower's speed"]["values"] == pytest.approx(
        [100 * t / b for b, t in zip(bare, tagged, strict=True)]
    )
    assert all(row["min"] > 0 and len(row["values"]) == 3 for row in timed.values())
    assert "images/s" in capsys.readouterr().out


def test_only_what_there_is_can_be_measured(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["nothing"])
    assert ended.value.code == 2
    assert "tagger" in capsys.readouterr().err
