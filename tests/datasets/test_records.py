import json
import os
from pathlib import Path

import pytest

from datasets import shapes
from datasets.records import DataError, MissingFileError, read_records

RELEASE = Path(__file__).parents[2].parent / "shared" / "data" / "release_json"


@pytest.fixture
def write(tmp_path):
    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        return str(tmp_path / "a.json")

    return write


def test_repeated_names_are_kept_once_in_order_of_first_mention(write):
    path = write({"images": [["x.jpg", ["b", "a", "b", "a", "c"]]], "classes": ["a", "b", "c"]})
    assert read_records(path, "").labels == (("b", "a", "c"),)


def test_records_keep_the_order_of_the_file(write):
    path = write({"images": [["y.jpg", []], ["x.jpg", ["é"]]], "classes": ["é", "B"]})
    assert read_records(path, "") == (("y.jpg", "x.jpg"), ((), ("é",)), ("é", "B"), path)


def test_a_relative_path_is_relative_to_the_root(write, tmp_path):
    write({"images": [], "classes": ["a"]})
    assert read_records("a.json", str(tmp_path)).source == str(tmp_path / "a.json")


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "classes": ["a"]}', encoding="utf-8-sig")
    assert read_records("a.json", str(tmp_path)).classes == ("a",)


def test_an_image_listed_again_with_the_same_labels_is_kept_once(write):
    path = write({"images": [["x", ["a", "b"]], ["y", []], ["x", ["b", "a"]]], "classes": ["a", "b"]})
    assert read_records(path, "").images == ("x", "y")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"images": [["x", []], ["z", ["a", "q"]]], "classes": ["a"]}, ["images[1]", "'q'", "'z'"]),
        ({"images": [["x", ["a"]], ["x", []]], "classes": ["a"]}, ["images[1]", "'x'", "other labels"]),
        ({"images": [], "classes": []}, ["classes is empty"]),
        ({"images": [], "classes": ["a", "b", "a"]}, ["classes[2]", "'a'", "twice"]),
        ({"images": [], "classes": ["a", " "]}, ["classes[1]", "not a name"]),
        ({"images": [], "classes": ["a", 3]}, ["classes[1] is 3"]),
        ({"images": [["x", "a"]], "classes": ["a"]}, ["images[0]", "[path, [labels]]"]),
        ({"images": [["x", [1]]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [["", ["a"]]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [["x"]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [{"id": 3, "file_name": "x.jpg"}], "classes": ["a"]}, ["images[0]", "file_name"]),
        ({"images": [], "categories": ["a"]}, ['"classes": [labels]']),
        ([["x", ["a"]]], ['"images": [[path, [labels]], ...]']),
        ('{"images": [],\n "classes": [a]}', ["line 2, column 14", "broken JSON"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line_that_names_the_place(write, content, named):
    path = write(content)
    with pytest.raises(DataError) as caught:
        read_records(path, "")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [path, *named]), message


def test_a_file_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"images": [["\xff"]]}')
    with pytest.raises(DataError, match="not a UTF-8 text file"):
        read_records("a.json", str(tmp_path))


def test_a_missing_file_names_the_path_and_the_keys(tmp_path):
    with pytest.raises(MissingFileError) as caught:
        read_records("no/such.json", str(tmp_path))
    assert all(
        part in str(caught.value) for part in (f"{tmp_path}/no/such.json", "DATASETS.ROOT_DIR", "DATASETS.TRAIN")
    )
    assert "\n" not in str(caught.value)


def test_an_empty_source_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match="DATASETS.TRAIN"):
        read_records("", str(tmp_path))


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="directory"):
        read_records(str(tmp_path), os.sep)


def test_shapes_records_are_the_scenes_of_the_split():
    records = read_records("shapes:val", "/anywhere")
    assert len(records.images) == 1000
    assert (records.images[17], records.labels[17]) == ("shapes:val/17", shapes.scene("val", 17).labels)
    assert records.classes == shapes.LABELS


@pytest.mark.parametrize("source", ["shapes:", "shapes:pretrain", "shapes:test/1"])
def test_an_unknown_split_of_shapes_is_an_error_that_lists_the_splits(source):
    with pytest.raises(DataError, match="shapes:train, shapes:val, shapes:test"):
        read_records(source, "")


@pytest.mark.skipif(not RELEASE.is_dir(), reason="the released annotation files are not here")
@pytest.mark.parametrize(
    ("name", "images", "classes", "density"),
    [("test_65_filtered.json", 6392, 65, 2.5703), ("test_17_filtered.json", 2729, 17, 1.2074)],
)
def test_the_released_files_give_the_published_counts(name, images, classes, density):
    records = read_records(name, str(RELEASE))
    assert (len(records.images), len(records.classes)) == (images, classes)
    assert sum(map(len, records.labels)) / images == pytest.approx(density, abs=1e-4)
