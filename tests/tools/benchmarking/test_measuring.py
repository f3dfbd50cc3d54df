"""What is counted of repeated calls."""

from types import SimpleNamespace

import pytest
import torch

from engine import memory
from tools.benchmarking import measuring
from tools.benchmarking.measuring import Measurement, Setting, free, in_turn, peak

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Makes calls that take known seconds, twice as many on the processor; a list keeps their order."""
    now, order = {"wall": 0.0, "processor": 0.0}, []
    known = SimpleNamespace(perf_counter=lambda: now["wall"], process_time=lambda: now["processor"])
    monkeypatch.setattr(measuring, "time", known)

    def call(name, seconds, first=0.0):
        def run():
            now["wall"] += seconds + first * (name not in order)
            now["processor"] += 2 * seconds
            order.append(name)

        return run

    return call, order


@pytest.mark.parametrize(("quick", "rounds"), [(True, 2), (False, 5)])
def test_calls_are_timed_in_turn_and_first_ones_are_not_counted(clock, quick, rounds):
    call, order = clock
    runs = {"a": call("a", 0.5, first=0.4), "b": call("b", 0.25, first=0.4)}
    took = in_turn(runs, Setting(CPU, quick))
    assert order == ["a", "a", "b", "b", *["a", "b"] * rounds]
    assert took == {"a": [(0.5, 1.0)] * rounds, "b": [(0.25, 0.5)] * rounds}


def test_a_long_first_call_counts_where_it_is_to_be_quick(clock):
    call, order = clock
    assert in_turn({"long": call("long", 2.0)}, Setting(CPU, quick=True)) == {"long": [(2.0, 4.0)] * 2}
    assert order == ["long"] * 2
    order.clear()
    in_turn({"long": call("long", 2.0)}, Setting(CPU, quick=False))
    assert order == ["long"] * 6


def test_one_round_has_to_do_where_a_call_takes_very_long_and_it_is_to_be_quick(clock):
    call, order = clock
    runs = {"own": call("own", 0.5), "longest": call("longest", 8.0)}
    assert in_turn(runs, Setting(CPU, quick=True)) == {"own": [(0.5, 1.0)], "longest": [(8.0, 16.0)]}
    assert order == ["own", "own", "longest", "own"]
    assert [len(took) for took in in_turn(runs, Setting(CPU, quick=False)).values()] == [5, 5]


def test_short_calls_are_made_many_times_in_a_round(clock, monkeypatch):
    monkeypatch.setattr(measuring, "SHORTEST", 0.05)
    call, order = clock
    took = in_turn({"short": call("short", 2**-7)}, Setting(CPU, quick=True))
    assert len(order) == 2 + 2 * 7
    assert took == {"short": [(2**-7, 2**-6)] * 2}


def test_a_row_holds_median_extremes_and_its_place():
    assert Measurement("c", "q", "s", [3.0, 1.0, 8.0], 5).row() == {
        "case": "c", "quantity": "q", "unit": "s", "at": 5, "median": 3.0, "min": 1.0, "max": 8.0,
        "values": [3.0, 1.0, 8.0],
    }  # fmt: skip
    assert "at" not in Measurement("c", "q", "s", [1.0]).row()


def test_the_memory_of_a_call_is_counted_and_that_of_before_is_not():
    held = torch.ones(30_000_000)  # 120 MB
    for _ in range(2):
        taken = peak(lambda: torch.ones(50_000_000).sum(), Setting(CPU, quick=True))
        if taken is None:
            pytest.skip("this system does not say")
        assert 190 < taken < 290
    assert held.sum() > 0


def test_where_the_system_does_not_say_there_is_no_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "STATUS", tmp_path / "gone")
    monkeypatch.setattr(measuring, "FORGET", tmp_path / "forget")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "gone")
    assert peak(lambda: None, Setting(CPU, quick=True)) is None
    assert free(Setting(CPU, quick=True)) is None


def test_what_is_free_is_what_the_system_says(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:  2000 kB\n")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    assert free(Setting(CPU, quick=True)) == pytest.approx(2000 * 1024 / 1e6)
