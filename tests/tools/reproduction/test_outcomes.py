"""Result files."""

import json
from pathlib import Path

import pytest

from tools.reproduction import outcomes
from tools.reproduction.outcomes import Outcome, OutcomeError, collect, content_of, curve_of, read, seconds_of, write
from tools.reproduction.plan import Benchmark

ROWS = {"ZSL": {"F1@3": 1.23456789, "mAP": 2.0, "CP@3": 9.0}}
TESTED = {
    "about": {"lists": {"ZSL": {}}, "labels": {}, "date": "2026", "environment": {"cpu": "x"},
              "config": {"MODEL.CLIP_WEIGHTS": "/home/someone/ViT-B-16.pt"}},
    "results": {"zero-shot CLIP": ROWS, "RAM": ROWS, "RAM (EMA)": {"ZSL": {"F1@3": 5.0, "mAP": 6.0}}},
}  # fmt: skip


@pytest.fixture
def job(planned):
    return planned("5", overrides=("DATASETS.ROOT_DIR", "/home/someone"), seeds=(7,)).tables[0].rows[1].jobs[0]


def made(job, log=(), **facts):
    return content_of(job, TESTED, log, **{"clip": "a CLIP", "seconds": 3.14159, "memory": 1.234, **facts})


def test_a_file_says_what_the_run_was_and_what_came_out(job, tmp_path):
    outcome = read(write(tmp_path / "new", "a.json", made(job)).path)
    assert outcome.identity == job.identity
    assert (outcome.content["run"], outcome.content["seed"], outcome.content["seconds"]) == ("ot", 7, 3.1)
    assert outcome.content["config"]["MODEL.MATCHER"] == "ot"
    assert outcome.content["results"]["RAM"]["ZSL"] == {"F1@3": 1.2346, "mAP": 2.0, "CP@3": 9.0}
    assert outcome.content["clip"] == "a CLIP"
    assert outcome.benchmark == Benchmark(("configs/shapes.yml",))


def test_no_path_of_the_machine_is_in_it(job):
    assert "someone" not in json.dumps(made(job))


def test_averaged_weights_are_shown_where_there_are_any(job):
    outcome = Outcome(Path("a"), made(job))
    assert (outcome.method("ema"), outcome.method("raw")) == ("RAM (EMA)", "RAM")
    assert outcome.values("ema") == {"ZSL F1@3": 5.0, "ZSL mAP": 6.0}
    assert outcome.values("raw")["ZSL F1@3"] == 1.2346
    untrained = Outcome(Path("a"), {"results": {"CLIP": ROWS}})
    assert untrained.method("ema") == untrained.method("raw") == "CLIP"


def test_the_memory_of_a_gpu_is_what_the_log_says(job):
    log = [{"kind": "train", "time": 1, "step": k, "loss": 1.0, "peak_memory_gb": k / 3} for k in (1, 2)]
    assert made(job, log)["memory_gb"] == {"gpu": 0.67, "host": 1.23}
    assert made(job, memory=None)["memory_gb"] == {"gpu": None, "host": None}


def test_the_identity_of_random_weights_is_of_one_seed_and_not_kept(job):
    tested = {**TESTED, "about": {**TESTED["about"], "config": {"MODEL.CLIP_WEIGHTS": "random"}}}
    assert content_of(job, tested, [], clip="a CLIP", seconds=0.0, memory=None)["clip"] is None


def test_curves_hold_few_points_and_the_last_line_of_a_step():
    log = [{"kind": "train", "step": step, "loss": 1 / step, "time": 0} for step in range(1, 101)]
    log += [
        {"kind": "train", "step": 1, "loss": 7.0, "time": 0},
        {"kind": "train", "step": 101, "loss": None, "time": 0},
    ]
    log += [
        {"kind": "val", "epoch": 2, "step": 9, "time": 0, "RAM/ZSL/F1@3": f, "RAM/ZSL/P@3": 0.0} for f in (1.0, 2.0)
    ]
    curve = curve_of(log)
    assert len(curve["loss"]) <= outcomes.CURVE
    assert curve["loss"][0] == [1, 7.0]
    assert curve["evaluated"] == [{"epoch": 2, "method": "RAM", "protocol": "ZSL", "F1@3": 2.0}]
    assert curve_of([]) == {"loss": [], "evaluated": []}


def test_a_run_that_was_resumed_took_the_time_of_all_its_parts():
    assert seconds_of([{"time": t} for t in (1.0, 5.0, 2.0, 3.0, 0.5)]) == 5.0 + 3.0 + 0.5
    assert seconds_of([]) == 0.0


def test_what_is_no_line_of_a_log_is_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"time": 1, "kind": "train"}\n7\n{"kind": "val"}\n{"time"')
    assert outcomes.log_of(tmp_path) == [{"time": 1, "kind": "train"}]
    assert outcomes.log_of(tmp_path / "absent") == []


def test_files_of_something_else_are_left_alone(job, tmp_path):
    for name, text in (("a.json", "[]"), ("b.json", '{"format": "another"}')):
        (tmp_path / name).write_text(text)
    write(tmp_path / "below", "c.json", made(job))
    write(tmp_path / "later", "d.json", {**made(job), "seconds": 9})
    assert [outcome.path.name for outcome in collect([tmp_path]).values()] == ["c.json"]


@pytest.mark.parametrize(
    "change",
    [{"results": {}}, {"seconds": "x"}, {"results": {"RAM": {"ZSL": {"F1@3": None, "mAP": 1.0}}}}, {"lists": ...}],
)
def test_a_damaged_file_is_named(job, tmp_path, change):
    content = {key: value for key, value in {**made(job), **change}.items() if value is not ...}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(OutcomeError, match=f"^{tmp_path / 'a.json'} is no result file: "):
        read(tmp_path / "a.json")


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(OutcomeError, match=f"^{tmp_path / 'a.json'} is no result file: "):
        read(tmp_path / "a.json")
