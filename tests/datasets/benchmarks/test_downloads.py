import hashlib
import json

import pytest

from datasets.benchmarks.downloads import Downloads, plain
from datasets.records import DataError, MissingFileError

LIST = json.dumps({"images": [["a.jpg", ["dog"]]], "classes": ["dog"]})
OURS = json.dumps({"images": [["b.jpg", ["dog"]]], "classes": ["dog"], "origin": {"benchmark": "coco"}})


@pytest.fixture
def write(tmp_path):
    def write(name, text=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_the_first_candidate_that_exists_is_found(write, tmp_path):
    write("b.txt")
    write("c.txt")
    assert Downloads(tmp_path).find("a.txt", "b.txt", "c.txt") == tmp_path / "b.txt"


def test_what_is_not_there_is_none(tmp_path):
    assert Downloads(tmp_path).find("a.txt") is None


def test_a_folder_is_found_and_has_no_checksum(tmp_path):
    (tmp_path / "images").mkdir()
    downloads = Downloads(tmp_path)
    assert downloads.find("images") == tmp_path / "images"
    assert downloads.checksums() == {}


def test_a_missing_file_is_said_in_one_line_with_the_places(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        Downloads(tmp_path).need("the list of tags", "tags/a.txt", "a.txt")
    assert str(caught.value).startswith(f"the list of tags is missing: no tags/a.txt or a.txt below {tmp_path}")
    assert "\n" not in str(caught.value)


def test_a_needed_file_is_found(write, tmp_path):
    path = write("d/a.txt")
    assert Downloads(tmp_path).need("a", "x", "d/a.txt") == path


@pytest.mark.parametrize("released", [False, True])
def test_a_folder_that_is_not_there_is_an_error(tmp_path, released):
    with pytest.raises(MissingFileError, match="no folder '.*nowhere'"):
        Downloads(tmp_path, tmp_path / "nowhere") if released else Downloads(tmp_path / "nowhere")


@pytest.mark.parametrize("folder", ["", "annotations/", "json/"])
def test_the_authors_list_is_found_in_the_root_and_two_folders(write, tmp_path, folder):
    write(f"{folder}test.json", LIST)
    downloads = Downloads(tmp_path)
    assert downloads.released("other.json", "test.json").images == ("a.jpg",)
    assert downloads.checksums() == {f"{folder}test.json": hashlib.sha256(LIST.encode()).hexdigest()}


def test_a_folder_of_authors_lists_takes_the_place_of_the_root(write, tmp_path):
    write("root/test.json", LIST)
    write("lists/train.json", LIST)
    downloads = Downloads(tmp_path / "root", tmp_path / "lists")
    assert downloads.released("test.json") is None
    assert downloads.released("train.json").labels == (("dog",),)


def test_one_of_our_own_lists_is_not_taken_for_one_of_the_authors(write, tmp_path):
    write("test.json", OURS)
    downloads = Downloads(tmp_path)
    assert downloads.released("test.json") is None
    assert downloads.checksums() == {}


def test_an_authors_list_behind_one_of_our_own_is_found(write, tmp_path):
    write("test.json", OURS)
    write("annotations/test.json", LIST)
    assert Downloads(tmp_path).released("test.json").images == ("a.jpg",)


@pytest.mark.parametrize(("text", "named"), [("{", "broken JSON"), ("[]", "expected")])
def test_an_authors_list_in_another_format_is_an_error_with_its_name(write, tmp_path, text, named):
    path = write("test.json", text)
    with pytest.raises(DataError) as caught:
        Downloads(tmp_path).released("test.json")
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_files_that_were_handed_out_have_checksums(write, tmp_path):
    write("a.txt", "one")
    write("b.txt", "two")
    downloads = Downloads(tmp_path)
    downloads.find("b.txt")
    assert downloads.checksums() == {"b.txt": hashlib.sha256(b"two").hexdigest()}


def test_plain_progress_changes_nothing():
    items = [1, 2]
    assert plain(items, "numbers") is items
