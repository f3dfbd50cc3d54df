"""The index of pictures from the command line."""

import io
import shutil
import sys

import pytest

from datasets.images import open_image
from tagging import Tagger
from tagging.collection import Collection
from tools.index_images import main, scenes


@pytest.fixture
def folder(finished, tmp_path):
    """Four pictures, one of them in a folder of its own."""
    place = tmp_path / "pictures"
    (place / "more").mkdir(parents=True)
    for k in range(3):
        shutil.copy(sorted((finished.data / "images").iterdir())[k], place)
    shutil.copy(sorted((finished.data / "images").iterdir())[3], place / "more")
    return place


def files(folder):
    return sorted(str(path) for path in folder.rglob("*.*"))


def test_a_folder_is_indexed_with_all_below_it_and_the_index_knows_its_run(finished, folder, tmp_path, capsys):
    out = tmp_path / "index"
    assert main([str(folder), "--out", str(out), "--run", str(finished.run)]) == 0
    collection = Collection.open(out)
    assert sorted(collection.paths) == files(folder)
    collection.require(Tagger.load(collection.run))
    size = sum(part.stat().st_size for part in out.glob("part-*"))
    assert f"{out}: 4 pictures, {size / 1e6:.1f} MB, {size / 4e3:.1f} KB each" in capsys.readouterr().out


def test_new_pictures_are_added_and_known_ones_are_not_read_again(finished, folder, tmp_path, capsys):
    line = ["--out", str(tmp_path / "index"), "--run", str(finished.run)]
    known = files(folder)
    assert main([str(folder / "more"), *line]) == 0
    assert main([str(folder), *line]) == 0
    for path in known:
        (folder / path).write_bytes(b"")  # whoever reads it now fails
    capsys.readouterr()
    assert main([str(folder), "shapes:test/3", *line]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'index'}: 5 pictures, ")
    assert sorted(Collection.open(tmp_path / "index").paths) == [*known, "shapes:test/3"]


def test_unreadable_pictures_are_named_counted_and_left_out(finished, folder, tmp_path, capsys):
    bad = folder / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert main([str(folder), "--out", str(tmp_path / "index"), "--run", str(finished.run)]) == 1
    err = capsys.readouterr().err
    assert f"left out: cannot read the image {bad}" in err
    assert "1 of 5 pictures cannot be read" in err
    assert str(bad) not in Collection.open(tmp_path / "index").paths


def test_if_no_picture_can_be_read_there_is_no_index(finished, tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    assert main([str(tmp_path / "bad.jpg"), "--out", str(tmp_path / "index"), "--run", str(finished.run)]) == 1
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "index").exists()


def test_a_list_of_pictures_may_come_on_stdin(finished, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(files(folder)[:2])))
    assert main(["-", "--out", str(tmp_path / "index"), "--run", str(finished.run)]) == 0
    assert list(Collection.open(tmp_path / "index").paths) == files(folder)[:2]


def test_a_split_of_the_embedded_world_stands_for_its_scenes():
    assert scenes("shapes:train[:3]") == ["shapes:train/0", "shapes:train/1", "shapes:train/2"]
    assert [len(scenes(f"shapes:{split}")) for split in ("train", "val", "test")] == [6000, 1000, 2000]
    assert all(open_image(reference, "").size == (64, 64) for reference in scenes("shapes:test[1998:]"))
    assert scenes("shapes:test/5") == ["shapes:test/5"]
    assert scenes("a/b.jpg") == ["a/b.jpg"]


@pytest.mark.parametrize(
    ("pictures", "run", "said"),
    [("nowhere.jpg", "", "no file or folder 'nowhere.jpg'"), ("shapes:other", "", "is no split of the embedded world"),
     ("shapes:test/1", "nowhere", "no run nowhere")],
)  # fmt: skip
def test_a_mistake_in_the_command_is_one_line_and_code_2(finished, tmp_path, capsys, pictures, run, said):
    assert main([pictures, "--out", str(tmp_path / "index"), "--run", run or str(finished.run)]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "index").exists()


def test_without_a_run_one_has_to_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["shapes:test/1", "--out", "index"]) == 2
    assert "there is no run below runs/ to index with: name one with --run" in capsys.readouterr().err
