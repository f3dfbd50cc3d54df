"""Files that users name."""

import os

import pytest

from files import open_regular, read_bytes, read_text, written_out


def test_a_regular_file_is_read_through_links_too(tmp_path):
    (tmp_path / "a.txt").write_text("ü\n")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert read_bytes(tmp_path / "b.txt") == "ü\n".encode()
    assert read_text(tmp_path / "b.txt") == "ü\n"
    with open_regular(str(tmp_path / "a.txt"), "r", encoding="utf-8", newline="") as file:
        assert list(file) == ["ü\n"]


@pytest.fixture(params=["pipe", "device", "folder", "absent", "NUL", "long"])
def odd(request, tmp_path):
    """What is no regular file, and what is said of it."""
    if request.param == "pipe":
        os.mkfifo(tmp_path / "pipe")  # nobody writes: `open` would wait for ever
    return {
        "pipe": (tmp_path / "pipe", "no regular file"),
        "device": ("/dev/zero", "no regular file"),
        "folder": (tmp_path, "Is a directory"),
        "absent": (tmp_path / "absent", "No such file or directory"),
        "NUL": ("a\0b", "no path: embedded null byte"),
        "long": ("a" * 300, "File name too long"),
    }[request.param]


def test_whatever_else_is_an_error_of_the_system_that_says_why(odd):
    path, why = odd
    for read in (read_bytes, read_text, open_regular):
        with pytest.raises(OSError, match=why) as caught:
            read(path)
        assert why in caught.value.strerror


def test_bytes_of_a_name_that_are_no_text_are_written_out():
    assert written_out("é\udcff.png") == "é\\udcff.png"
