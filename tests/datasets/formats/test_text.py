from pathlib import Path

import pytest

from datasets.formats.text import labels_in, parse_json, read_text, separator_of
from datasets.records import DataError


@pytest.mark.parametrize(
    "content", [b"a\nb", b"a\r\nb", b"a\rb", b"\xef\xbb\xbfa\r\nb"], ids=["unix", "dos", "mac", "bom"]
)
def test_ends_of_lines_and_byte_order_mark_are_no_part_of_the_text(tmp_path, content):
    (tmp_path / "x.txt").write_bytes(content)
    assert read_text(tmp_path / "x.txt") == "a\nb"


def test_a_binary_file_is_told(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"PK\x03\x04\x00\xff\xe4")
    with pytest.raises(DataError, match=r"x\.csv: a binary file, not text$"):
        read_text(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("müde".encode("latin-1"), 1),
        (b"a\r\nb\r\nc" + "ü".encode("latin-1"), 3),
        (b"a\rb" + "ü".encode("cp1252") + b"\rc", 2),
        ("image,labels\n".encode("utf-16"), 1),
    ],
    ids=["latin-1", "dos", "mac", "utf-16"],
)
def test_text_that_is_not_utf8_names_the_line_and_the_way_out(tmp_path, content, line):
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.txt, line {line}: not UTF-8 text: save the file as UTF-8$"):
        read_text(tmp_path / "x.txt")


@pytest.mark.parametrize(
    ("texts", "found"),
    [(["a,b", "c;d", "e|f"], "|"), (["a,b", "c;d"], ";"), (["a,b", "c"], ","), (["a b", ""], ""), ([], "")],
)
def test_auto_is_the_first_separator_that_occurs_anywhere(texts, found):
    assert separator_of(texts, "auto")[0] == found


def test_a_separator_that_was_found_is_noted():
    (note,) = separator_of(["a;b"], "auto")[1]
    assert note.startswith("labels are taken to be separated by ';'; where it is part of a label, set DATASETS.SEP")


@pytest.mark.parametrize("given", ["/", " ", "", ","])
def test_a_separator_that_is_set_is_taken_without_a_note(given):
    assert separator_of(["a|b"], given) == (given, ())


@pytest.mark.parametrize(
    ("text", "separator", "labels"),
    [
        (" dog |traffic light|| cat\t", "|", ["dog", "traffic light", "cat"]),
        ("dog, big|cat", "", ["dog, big|cat"]),
        ("dog cat", " ", ["dog", "cat"]),
        ("dog\n\ncat|dog\n", "|", ["dog", "cat", "dog"]),
        ("a::b", "::", ["a", "b"]),
        (" ", "|", []),
    ],
)
def test_labels_have_no_blanks_around_them_and_lines_always_separate(text, separator, labels):
    assert labels_in(text, separator) == labels


def test_a_number_of_thousands_of_digits_is_one_line():
    with pytest.raises(DataError, match=r"^a\.json: JSON with a number of thousands of digits is no annotation file$"):
        parse_json("9" * 5000, Path("a.json"))
