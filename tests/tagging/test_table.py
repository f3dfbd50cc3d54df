"""Predictions on a terminal."""

import io

import pytest

from tagging.predictor import Prediction
from tagging.table import Printed, Table, columns

DOG = Prediction("pics/street.jpg", ("dog", "traffic light", "bus"), (0.987, 0.5, 0.25))


def test_a_picture_is_a_line_where_nobody_reads_along():
    table = Table([DOG.picture, "x.png"], None)
    assert table.head() == ["picture          labels", "---------------  ------"]
    assert list(table.rows(DOG)) == ["pics/street.jpg  dog 0.99, traffic light 0.50, bus 0.25"]
    assert list(table.rows(Prediction("x.png", (), ()))) == ["x.png            -"]


@pytest.mark.parametrize("width", [36, 44, 60, 100])
def test_no_line_is_longer_than_the_terminal_and_no_label_is_torn(width):
    lines = list(Table([DOG.picture, "a/very/long/path/" * 9], width).rows(DOG))
    assert max(map(len, lines)) <= width
    text = " ".join(line[lines[0].index("dog") :].strip() for line in lines)
    assert text == "dog 0.99, traffic light 0.50, bus 0.25"
    assert any("traffic light 0.50" in line for line in lines)


def test_a_long_name_loses_its_beginning():
    long = DOG._replace(picture="photos/" * 20 + "street.jpg")
    (line, *_) = Table([long.picture], 60).rows(long)
    assert line.startswith("…")
    assert line.split("  ")[0].endswith("photos/street.jpg")


def test_east_asian_characters_take_two_columns():
    assert columns("犬.png") == 6
    rows = list(
        Table(["犬.png", "abcdefgh"], None).rows(DOG._replace(picture="犬.png", labels=("犬",), probabilities=(1.0,)))
    )
    assert rows == ["犬.png    犬 1.00"]


def test_the_head_is_printed_once_and_not_before_there_is_a_row():
    stream = io.StringIO()
    printed = Printed(Table(["a", "b"], None), stream)
    printed.add([])
    assert stream.getvalue() == ""
    for name in ("a", "b"):
        printed.add([Prediction(name, (), ())])
    printed.finish()
    assert stream.getvalue().splitlines() == ["picture  labels", "-------  ------", "a        -", "b        -"]
