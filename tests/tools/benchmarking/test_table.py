"""Values beside those of before."""

from tools.benchmarking.files import of_rows
from tools.benchmarking.measuring import Measurement
from tools.benchmarking.table import short, table


def made(**values):
    return of_rows({}, [{"what": "w", **Measurement("case", n, "s", v).row()} for n, v in values.items()]).rows


def test_changes_are_those_of_the_medians():
    text = table(made(time=[1.0, 4.5, 5.0], other=[1.0]), made(time=[3.0]))
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
    assert lines[2] == ["case: time", "s", "4.5", "1", "5", "3", "+50.0 %"]
    assert lines[3][-2:] == ["-", "-"]


def test_numbers_have_three_digits_or_all_in_front_of_the_point():
    assert [short(value) for value in (0.01234, 5.678, 999.4, 1234.5)] == ["0.0123", "5.68", "999", "1,234"]
