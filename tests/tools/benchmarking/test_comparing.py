"""Ratios, shares and what a rival is."""

import pytest
import torch

from tools.benchmarking import comparing
from tools.benchmarking.comparing import Case, Rival, at_precisions, compared, longer, matrix_rate
from tools.benchmarking.measuring import Setting, Took
from tools.benchmarking.precision import FLOAT32, Precision

CPU = torch.device("cpu")


@pytest.fixture
def known(monkeypatch):
    """Seconds of calls, told by their names; what they are on the processor is ten times as long."""
    seconds = {}

    def in_turn(runs, setting):  # noqa: ARG001
        return {name: [Took(s, 10 * s) for s in seconds[name]] for name in runs}

    monkeypatch.setattr(comparing, "in_turn", in_turn)
    monkeypatch.setattr(comparing, "peak", lambda run, setting: run() or 7.0)  # noqa: ARG005
    return seconds


def case(rivals, flop=0.0):
    return Case("case", lambda: None, rivals, flop)


def values(measurements):
    return {one.quantity: list(one.values) for one in measurements}


def test_ratios_are_those_of_each_round_by_the_clock_and_by_the_processor(known):
    known.update({"": [1.0, 2.0], "other 0": [4.0, 6.0], "matrix product": [1.0, 1.0]})
    found = values(compared(case([Rival("other", (lambda: None,))]), Setting(CPU, quick=True)))
    assert found["time"] == [1.0, 2.0]
    assert found["processor time"] == [10.0, 20.0]
    assert found["other"] == [4.0, 6.0]
    assert found["faster than other"] == found["faster than other, by processor time"] == [4.0, 3.0]


def test_variants_are_measured_in_the_same_rounds_beside_the_same_rivals(known):
    known.update({"": [2.0], ", in C": [1.0], "other 0": [4.0], "matrix product": [1.0]})
    one = case([Rival("other", (lambda: None,))])._replace(variants={", in C": lambda: None})
    made = list(compared(one, Setting(CPU, quick=False)))
    usual, variant = (values(m for m in made if m.case == name) for name in ("case", "case, in C"))
    assert (usual["faster than other"], variant["faster than other"]) == ([2.0], [4.0])
    assert variant["memory"] == [7.0]
    assert usual.keys() - variant.keys() == {"memory of other"}


def test_the_share_is_that_of_the_operations_per_second(known):
    known.update({"": [2.0], "matrix product": [1.0]})
    found = values(compared(case([], flop=32**3), Setting(CPU, quick=True)))  # half of a product, in twice its time
    assert found["of the matrix rate"] == found["of the matrix rate, by processor time"] == [25.0]


def test_a_rivals_memory_is_measured_where_there_is_time(known):
    known.update({"": [1.0], "other 0": [1.0], "matrix product": [1.0]})
    one = case([Rival("other", (lambda: None,))])
    assert values(compared(one, Setting(CPU, quick=False)))["memory of other"] == [7.0]
    assert "memory of other" not in values(compared(one, Setting(CPU, quick=True)))


def test_a_time_for_many_is_on_the_line_through_two(known):
    made = []
    rival = longer("other", lambda count: made.append(count), (10, 30), 100)
    assert made == [10, 30]
    assert rival.total([5.0, 9.0]) == pytest.approx(5 + 0.2 * 90)
    known.update({"": [1.0], "other 0": [5.0], "other 1": [9.0], "matrix product": [1.0]})
    found = values(compared(case([rival]), Setting(CPU, quick=False)))
    assert found["other, from 10 and 30 labels"] == found["faster than other"] == pytest.approx([23.0])
    assert "memory of other" not in found  # of fewer labels


def test_lower_precisions_stand_beside_float32(known, monkeypatch):
    known.update({"": [1.0], "other 0": [4.0], "float32 0": [3.0], "matrix product": [1.0]})
    there = [FLOAT32, Precision("bf16", torch.bfloat16)]
    monkeypatch.setattr(comparing, "precisions", lambda device: there)  # noqa: ARG005
    made = []

    def make(precision):
        made.append(precision)
        return case([Rival("other", (lambda: None,))])

    found = list(at_precisions(make, Setting(CPU, quick=True)))
    assert made == there
    ratios = {one.case: one.quantity for one in found if one.quantity.startswith("faster") and "by" not in one.quantity}
    assert ratios == {"case": "faster than other", "case, bf16": "faster than float32"}


def test_the_rate_of_products_is_measured_in_the_dtype_that_is_asked_for():
    rate = matrix_rate(Setting(CPU, quick=True), torch.bfloat16)
    assert rate.case == "matrices of 32 x 32, bfloat16"
    assert min(rate.values) > 0
