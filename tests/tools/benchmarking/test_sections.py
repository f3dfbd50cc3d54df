"""Tables of what belongs together."""

import pytest

from tools.benchmarking.files import of_rows
from tools.benchmarking.measuring import Measurement
from tools.benchmarking.sections import curves, duration, markdown, plain, section, size

STEP = [
    Measurement("training step, 48 labels", "time", "s", [2.0, 3.0, 4.0]),
    Measurement("training step, 48 labels", "memory", "MB", [500.0]),
    Measurement("training step, 48 labels", "plain reference, from 8 and 24 labels", "s", [6.0]),
    Measurement("training step, 48 labels", "faster than plain reference", "x", [2.0]),
    Measurement("training step, 48 labels", "faster than plain reference, by processor time", "x", [2.5]),
    Measurement("training step, 48 labels", "memory of plain reference", "MB", [900.0]),
    Measurement("training step, 48 labels", "of the matrix rate", "%", [40.0]),
    Measurement("training step, 48 labels", "of the matrix rate, by processor time", "%", [60.0]),
]


@pytest.fixture
def run():
    def make(measurements, what="train", load=0.0):
        return of_rows({"load": load}, [{"what": what, **one.row()} for one in measurements])

    return make


def test_a_line_holds_all_of_a_case_and_its_rival(run):
    made = section("train", run(STEP))
    assert dict(zip(made.head, made.lines[0], strict=True)) == {
        "": "training step, 48 labels", "time": "3 s (2 s to 4 s)", "memory": "500 MB", "of the matrix rate": "40 %",
        "beside": "plain reference, from 8 and 24 labels", "its time": "6 s", "its memory": "900 MB",
        "times as fast": "2 (2 to 2)", "by processor time": "2.5 (2.5 to 2.5)", "at least": "1.4",
    }  # fmt: skip


def test_on_a_busy_machine_the_share_is_by_the_processors_time(run):
    assert section("train", run(STEP, load=3.0)).lines[0][3] == "60 %"


def test_a_second_rival_has_a_line_and_the_case_is_said_once(run):
    more = [Measurement("training step, 48 labels", "other", "s", [3.0]),
            Measurement("training step, 48 labels", "faster than other", "x", [1.0])]  # fmt: skip
    lines = section("train", run([*STEP, *more])).lines
    assert [line[:5] for line in lines][1] == ("", "", "", "", "other")
    assert lines[1][-2:] == ("-", "-")


def test_counts_stand_beside_the_case(run):
    counts = [Measurement("training step, 48 labels", "iterations", "", [3.0, 5.0, 9.0])]
    assert section("solver", run([*counts, *STEP], "solver")).lines[0][0] == "training step, 48 labels, iterations 5"


def test_what_is_compared_with_nothing_has_a_line_for_each_value(run):
    made = section("loader", run([Measurement("loader, test images", "speed", "images/s", [1.0, 2.0])], "loader"))
    assert made.lines == [["loader, test images", "speed", "1.5 images/s", "1", "2"]]


def test_parts_have_seconds_and_shares(run):
    made = [Measurement(case, part, "s", [seconds]) for case, part, seconds in (
        ("a", "ladder", 0.5), ("a", "loss", 1.5), ("b", "ladder", 1e-4))]  # fmt: skip
    table = section("parts", run(made, "parts"))
    assert table.head == ("", "a", "b")
    assert table.lines == [
        ("ladder", "500 ms, 25 %", "100 µs, 100 %"), ("loss", "1.5 s, 75 %", "-"), ("together", "2 s", "100 µs")
    ]  # fmt: skip


def test_a_curve_has_its_exponents(run):
    costs = {"time": lambda n: n / 100, "processor time": lambda n: n * n, "memory": lambda n: n}
    grown = [Measurement("x, by labels", name, "", [f(n)], n) for n in (10, 100, 1000) for name, f in costs.items()]
    assert section("growth", run(grown, "growth")).lines == [
        ("x, by labels", "10", "1,000", "10 s", "1.00", "1 GB", "1.00")
    ]  # fmt: skip
    assert section("growth", run(grown, "growth", load=9.0)).lines[0][4] == "2.00"
    assert curves(run(grown, "growth"), "time") == {"x, by labels": {10: 0.1, 100: 1.0, 1000: 10.0}}


def test_a_curve_without_memory_or_with_two_places_has_a_dash(run):
    grown = [Measurement("x, by labels", "time", "s", [n], n) for n in (10, 100)]
    assert section("growth", run(grown, "growth")).lines[0][4:] == ("-", "-", "-")


def test_tables_are_for_pages_and_for_terminals(run):
    made = section("loader", run([Measurement("loader", "speed", "images/s", [2.0])], "loader"))
    assert markdown(made).splitlines()[1:] == [
        "| --- | ---: | ---: | ---: | ---: |", "| loader | speed | 2 images/s | 2 | 2 |"
    ]  # fmt: skip
    assert plain(made).splitlines()[-1].split() == ["loader", "speed", "2", "images/s", "2", "2"]


@pytest.mark.parametrize(("seconds", "text"), [(12.34, "12.3 s"), (0.01234, "12.3 ms"), (2e-6, "2 µs")])
def test_durations_have_three_digits(seconds, text):
    assert duration(seconds) == text


def test_sizes_have_three_digits():
    assert [size(megabytes) for megabytes in (0.5, 123.4, 1234.5)] == ["0.5 MB", "123 MB", "1.23 GB"]
