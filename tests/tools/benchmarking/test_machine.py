"""The machine itself."""

import os

from tools.benchmarking import machine


def test_its_rate_is_measured_at_every_precision(quick):
    found = list(machine.measure(quick))
    assert [one.unit for one in found] == ["GFLOP/s"] * len(found)
    assert found[0].case.endswith("float32")


def test_the_load_is_that_of_the_last_minute(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.234, 9, 9), raising=False)
    assert machine.load() == 1.23


def test_where_the_system_does_not_say_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert machine.load() is None
