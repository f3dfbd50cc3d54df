"""What is said while runs are under way."""

from pathlib import Path

import pytest

from tools.reproduction import progress
from tools.reproduction.progress import Progress, duration
from tools.reproduction.runner import Failure, Usage


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (99, "99 s"), (100, "2 min"), (5999, "100 min"),
                                               (9000, "2.5 h")])  # fmt: skip
def test_durations_have_their_own_units(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_rest_is_told_from_finished_runs(clock, capsys):
    shown = Progress(4, 2, [])
    shown.begin(7)
    shown.said("begins", "a", None)
    clock[0] = 60.0
    shown.said("begins", "b", None)
    shown.said("done", "a", Usage(60.0, 1))
    clock[0] = 90.0
    shown.said("failed", "b", Failure("b", Path("b.txt"), "no images"))
    assert capsys.readouterr().out.splitlines() == [
        "7 runs are finished, 4 to do, 2 at a time", "a begins", "b begins",
        "[1/4] a done in 60 s; about 90 s left", "[2/4] b failed: no images; log: b.txt; about 60 s left",
    ]  # fmt: skip


def test_before_there_are_any_it_is_told_from_earlier_ones(clock, capsys):  # noqa: ARG001
    Progress(4, 2, [0.0, 50.0, 70.0]).begin(1)
    assert capsys.readouterr().out.endswith("2 at a time; about 2 min left\n")
