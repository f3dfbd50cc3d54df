"""The campaign of kills: a short one, and that it finds what differs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine.checkpoint import load_checkpoint, save_checkpoint
from tools.chaos import differences, same

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_few_kills_leave_no_trace(forked):
    done = forked(ROOT / "tools" / "chaos.py", "--kills", "2", "--settings", "1")
    ended = done.wait()
    assert (ended, done.stdout.strip().endswith(" trainings of 1 settings: 0 findings")) == (0, True), done.stderr
    assert int(done.stdout.split()[0]) >= 2


@pytest.fixture
def pair(finished, tmp_path):
    """A run and its copy, to change something in."""
    return Path(shutil.copytree(finished.run, tmp_path / "copy")), finished.run


def test_a_copy_does_not_differ(pair):
    assert differences(*pair) == []


def checkpoint(run):
    content = load_checkpoint(run / "checkpoint.pth")
    next(iter(content["model"].values())).view(-1)[0] += 1e-6
    save_checkpoint(run / "checkpoint.pth", content)


def results(run):
    path = run / "val" / "epoch-1" / "results.json"
    content = json.loads(path.read_text())
    content["results"]["RAM"]["ZSL"]["mAP"] += 1e-6
    path.write_text(json.dumps(content))


def log(run):
    lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join([*lines, lines[-1]]))


def clock(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines[-1]["time"] = 0.0
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (checkpoint, "model of the checkpoint differs"),
        (results, "val/epoch-1/results.json differs"),
        (log, "the log differs"),
        (clock, "time goes backwards in the log"),
        (lambda run: (run / ".checkpoint.pth.ab.part").touch(), ".checkpoint.pth.ab.part is in one of both"),
        (lambda run: (run / "environment.json").unlink(), "environment.json is in one of both"),
    ],
)
def test_what_differs_is_found(pair, change, said):
    change(pair[0])
    assert differences(*pair) == [said]


@pytest.mark.parametrize(
    ("left", "right", "alike"),
    [
        ({"a": [torch.ones(2), 1]}, {"a": [torch.ones(2), 1]}, True),
        ({"a": 1}, {"b": 1}, False),
        ([1], [1, 2], False),
        (1, 1.0, False),
        (torch.ones(1), torch.ones(1, dtype=torch.float64), False),
        (torch.ones(1), 1.0, False),
    ],
)
def test_contents_are_the_same_to_the_last_bit(left, right, alike):
    assert same(left, right) is alike
