"""Files that grow line by line."""

import json
import os
from pathlib import Path

import pytest

from engine.atomic import WriteError
from tagging.progress import OutputError, Progress


def begin(folder, *, head=None, lines=None, **identity):
    target = Path(folder, "out.txt")
    return Progress(target, lines or target, head=head, picture=str.strip, identity=identity)


def test_nothing_is_written_before_the_first_line(tmp_path):
    progress = begin(tmp_path, a=1)
    progress.add([])
    progress.finish()
    assert list(tmp_path.iterdir()) == []


def test_lines_are_in_the_file_once_they_were_added(tmp_path):
    progress = begin(tmp_path, a=1, head="head")
    progress.add(["x", "y"])
    assert (tmp_path / "out.txt").read_text() == "head\nx\ny\n"
    assert json.loads((tmp_path / "out.txt.progress.json").read_text()) == {"a": 1}
    progress.stop()


@pytest.mark.parametrize("head", [None, "head"])
@pytest.mark.parametrize("cut", range(7))
def test_wherever_it_was_cut_off_it_goes_on_behind_the_last_whole_line(tmp_path, head, cut):
    progress = begin(tmp_path, a=1, head=head)
    progress.add(["x", "yy", "zzz"])
    progress.stop()
    file = tmp_path / "out.txt"
    whole = file.read_bytes()
    os.truncate(file, len(whole) - cut)
    again = begin(tmp_path, a=1, head=head)
    assert again.done == ({"x", "yy", "zzz"} if cut == 0 else {"x", "yy"} if cut < 5 else {"x"})
    again.add([line for line in ("x", "yy", "zzz") if line not in again.done])
    again.finish()
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_lost_even_its_head_is_begun_again(tmp_path):
    progress = begin(tmp_path, head="head")
    progress.add(["x"])
    progress.stop()
    os.truncate(tmp_path / "out.txt", 2)
    again = begin(tmp_path, head="head")
    again.add(["x"])
    again.finish()
    assert (tmp_path / "out.txt").read_text() == "head\nx\n"


def test_a_long_unfinished_line_is_dropped_too(tmp_path):
    progress = begin(tmp_path)
    progress.add(["x", "y" * 200_000])
    progress.stop()
    os.truncate(tmp_path / "out.txt", 150_000)
    assert begin(tmp_path).done == {"x"}
    assert (tmp_path / "out.txt").read_text() == "x\n"


def test_another_question_is_not_answered_into_the_same_file(tmp_path):
    progress = begin(tmp_path, labels=["a"], threshold="best", top=None)
    progress.add(["x"])
    progress.stop()
    with pytest.raises(OutputError, match=r"out\.txt was begun with other values of labels, threshold: ask the same"):
        begin(tmp_path, labels=["b"], threshold=0.5, top=None)
    assert begin(tmp_path, labels=["a"], threshold="best", top=None).done == {"x"}


def test_a_file_that_was_finished_or_is_of_another_kind_is_left_alone(tmp_path):
    (tmp_path / "out.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.txt is there already"):
        begin(tmp_path)
    assert (tmp_path / "out.txt").read_text() == "mine"


def test_lines_become_the_target_at_the_end(tmp_path):
    progress = begin(tmp_path, head="head", lines=tmp_path / "out.part")
    progress.add(["x", "y"])
    progress.finish(lambda lines: (tmp_path / "out.txt").write_text("+".join(lines)))
    assert (tmp_path / "out.txt").read_text() == "x+y"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("content", ["", "[]", "7", "{"])
def test_a_note_that_says_nothing_is_named(tmp_path, content):
    (tmp_path / "out.txt.progress.json").write_text(content)
    with pytest.raises(OutputError, match=r"out\.txt\.progress\.json is broken: remove it"):
        begin(tmp_path, a=1)


def test_lines_of_something_else_are_named(tmp_path):
    progress = begin(tmp_path, head="head")
    progress.add(["x"])
    progress.stop()
    (tmp_path / "out.txt").write_text("tail\nx\n")
    with pytest.raises(OutputError, match="holds lines that are not of this"):
        begin(tmp_path, head="head")


def test_a_refusal_of_the_system_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    progress = begin(tmp_path / "file" / "folder")
    with pytest.raises(WriteError, match=r"out\.txt: cannot write, "):
        progress.add(["x"])
