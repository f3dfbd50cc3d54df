import pytest

from datasets.benchmarks.missing.indices import read
from datasets.records import DataError

NAMES = ("a", "b", "c")


def test_a_line_is_an_image_and_numbers_from_zero(root):
    path = root.write("list.txt", ["x.jpg,0", "y,z.jpg, 2 1", "", "w.jpg,"])
    records = read(path, NAMES, "images/")
    assert records.images == ("images/x.jpg", "images/y,z.jpg", "images/w.jpg")
    assert records.labels == (("a",), ("c", "b"), ())
    assert records.classes == NAMES


@pytest.mark.parametrize("line", ["x.jpg", "x.jpg,3", "x.jpg,-1", "x.jpg,b", ",1"])
def test_a_line_of_something_else_is_named(root, line):
    path = root.write("list.txt", ["x.jpg,0", line])
    with pytest.raises(DataError, match=r"list\.txt, line 2: .* numbers of labels between 0 and 2"):
        read(path, NAMES, "")
