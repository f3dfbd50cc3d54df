"""Which ratios are asked for."""

import pytest

from tools.benchmarking.files import of_rows
from tools.benchmarking.measuring import Measurement
from tools.benchmarking.targets import TARGETS, missed, target_of


def rows(case, rival, clock, processor):
    quantities = {f"faster than {rival}": clock, f"faster than {rival}, by processor time": processor}
    made = [Measurement(case, name, "x", [value]) for name, value in quantities.items()]
    return of_rows({}, [{"what": "w", **one.row()} for one in made]).rows


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target.case}, {target.rival}")
def test_a_ratio_below_its_target_is_named(target):
    case, below, above = f"{target.case}, more", 0.9 * target.least, 1.1 * target.least
    idle, busy = rows(case, target.rival, below, above), rows(case, target.rival, above, below)
    assert missed(idle, busy=False) == [f"{case}: faster than {target.rival}: {below:.2f} times, not {target.least:g}"]
    assert missed(idle, busy=True) == missed(busy, busy=False) == []
    assert len(missed(busy, busy=True)) == 1
    assert [target_of(row) for row in idle] == [target.least] * 2


def test_nothing_is_asked_of_other_rows():
    assert missed(rows("one image, 65 labels", "plain reference", 0.1, 0.1), busy=False) == []
    assert missed(rows("evaluation, 65 labels", "float32", 0.1, 0.1), busy=False) == []


def test_what_is_asked_of_a_case_is_asked_of_its_variants_too():
    case = "solver, 32 x 196 x 925, iterations as needed"
    asked = [target_of(rows(name, "batched loop with copies", 1, 1)[0]) for name in (case, f"{case}, native kernel")]
    assert asked == [4, 10]
    variant = rows("solver, 32 x 196 x 925, 100 iterations, native kernel", "batched loop with copies", 1, 1)[0]
    assert target_of(variant) == 10
