"""What stands for pictures on a command line."""

import os
from pathlib import Path

import pytest

from datasets.records import DataError, MissingFileError
from tagging.inputs import Listed, files_of, find_pictures, require_readable_name


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """pics with a.png, B.JPG, notes.txt, sub/c.webp and hidden files; it is in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "B.JPG", "notes.txt", "sub/c.webp", "._a.png", ".cache/d.png"):
        Path("pics", name).parent.mkdir(parents=True, exist_ok=True)
        Path("pics", name).touch()
    return Path("pics")


def pictures(*arguments, **more):
    return [found.picture for found in find_pictures(arguments, **more)]


def names(*arguments, **more):
    return [found.name for found in find_pictures(arguments, **more)]


@pytest.mark.usefixtures("folder")
def test_a_folder_stands_for_the_pictures_at_any_depth_but_hidden_ones():
    assert pictures("pics") == pictures("./pics/") == ["pics/B.JPG", "pics/a.png", "pics/sub/c.webp"]


@pytest.mark.usefixtures("folder")
def test_a_pattern_stands_for_the_pictures_and_folders_it_matches():
    assert pictures("pics/*") == ["pics/B.JPG", "pics/a.png", "pics/sub/c.webp"]
    assert pictures("pics/**/*.webp") == ["pics/sub/c.webp"]


@pytest.mark.usefixtures("folder")
def test_a_file_may_have_any_suffix_and_a_reference_needs_no_file():
    assert pictures("pics/notes.txt", "shapes:test/17") == ["pics/notes.txt", "shapes:test/17"]


@pytest.mark.usefixtures("folder")
def test_a_file_with_the_signs_of_a_pattern_in_its_name_is_that_file():
    Path("a[1].png").touch()
    assert pictures("a[1].png") == ["a[1].png"]


@pytest.mark.usefixtures("folder")
def test_a_picture_that_is_named_twice_is_there_once():
    assert pictures("pics/a.png", "pics", "./pics/a.png") == ["pics/a.png", "pics/B.JPG", "pics/sub/c.webp"]


@pytest.mark.usefixtures("folder")
def test_a_dash_stands_for_a_list_which_may_name_what_is_not_there():
    lines = ["pics/a.png\n", "\n", "gone/x.png\r\n", "pics/sub", "shapes:val/1\n"]
    assert pictures("-", lines=lines) == ["pics/a.png", "gone/x.png", "pics/sub/c.webp", "shapes:val/1"]


@pytest.mark.usefixtures("folder")
def test_pictures_below_a_folder_are_left_out_on_demand():
    assert pictures("pics", without="pics/sub") == ["pics/B.JPG", "pics/a.png"]


@pytest.mark.usefixtures("folder")
def test_a_picture_is_called_by_its_path_below_the_only_folder():
    assert names("pics") == ["B.JPG", "a.png", "sub/c.webp"]
    assert names("pics/a.png", "pics/sub") == ["pics/a.png", "pics/sub/c.webp"]
    assert names(str(Path("pics/sub").resolve()), "shapes:test/1")[0].endswith("pics/sub/c.webp")
    assert names("shapes:test/1") == ["test/1"]


@pytest.mark.usefixtures("folder")
def test_names_never_lead_out_of_the_folder_they_are_written_to():
    os.chdir("pics/sub")
    found = find_pictures(["../a.png", str(Path("c.webp").resolve())])
    files = files_of(found, Path("out"), ".txt")
    assert [os.path.normpath(file) for file in files.values()] == [str(file) for file in files.values()]
    assert all(file.parts[0] == "out" for file in files.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["pics/x.png"], "no file or folder 'pics/x.png'"), (["pics/*.gif"], r"no pictures in pics/\*.gif: name files"),
     (["empty"], "no pictures in empty"), ([], "no pictures: name files")],
)  # fmt: skip
@pytest.mark.usefixtures("folder")
def test_nothing_to_read_is_said(arguments, message):
    Path("empty").mkdir()
    with pytest.raises(MissingFileError, match=message):
        find_pictures(arguments)


def test_two_pictures_that_would_be_written_to_one_file_are_named():
    found = [Listed("p/a.png", "a.png"), Listed("p/a.jpg", "a.jpg")]
    with pytest.raises(DataError, match=r"p/a\.png and p/a\.jpg would both be written to out/a\.txt"):
        files_of(found, Path("out"), ".txt")
    assert files_of(found, Path("out"), "") == {"p/a.png": Path("out/a.png"), "p/a.jpg": Path("out/a.jpg")}


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\xff.png"])
def test_a_name_that_no_list_can_hold_is_no_picture(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    open(path, "w").close()
    with pytest.raises(DataError, match="rename the file"):
        require_readable_name(os.fsdecode(path))


def test_a_file_of_the_same_name_elsewhere_is_another_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.png").touch()
    require_readable_name("x.png")
    with pytest.raises(MissingFileError, match="no file gone/x.png"):
        require_readable_name("gone/x.png")


def test_scenes_of_any_world_are_named_by_split_and_number():
    found = find_pictures(["emoji:test_shifted/3", "shapes:test/1"])
    assert [tuple(one) for one in found] == [
        ("emoji:test_shifted/3", "test_shifted/3"), ("shapes:test/1", "test/1")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "reference",
    ["shapes:", "shapes:.", "shapes:/", "shapes:test/\u0663", "shapes:test/1/2", "emoji:test", "emoji:Test/1"],
)
def test_what_is_no_scene_is_refused_at_once(reference):
    for arguments, lines in (([reference], ()), (["-"], [reference])):
        with pytest.raises(DataError, match="is no scene of the embedded world"):
            find_pictures(arguments, lines)
