"""Visual Genome's lists, with the published numbers of labels and with labels derived from its objects."""

import json

import pytest

from datasets.benchmarks.missing import vg200
from datasets.records import DataError, MissingFileError

OBJECTS = {5: [["Man", "person"], ["tree"]], 2: [["trees"], ["sky"]], 9: [["man"], ["car"]]}


@pytest.fixture
def vg(root, monkeypatch):
    monkeypatch.setattr(vg200, "LABELS", 3)
    root.write("train_list_500.txt", ["5.jpg", "2.jpg"])
    root.write("test_list_500.txt", ["9.jpg"])
    return root


@pytest.fixture
def published(vg):
    vg.write("vg_category_500_labels_index.json", json.dumps({"5.jpg": [2, 7, 0], "2.jpg": [3], "9.jpg": [1]}))
    vg.write("vg_category_200_names.txt", ["sky", "tree", "man"])
    return vg


@pytest.fixture
def derived(vg):
    content = [{"image_id": i, "objects": [{"names": n} for n in names]} for i, names in OBJECTS.items()]
    vg.write("objects.json", json.dumps(content))
    vg.write("object_alias.txt", ["tree,trees", "man,person,guy"])
    return vg


def test_of_the_numbers_for_500_labels_the_first_are_taken(published):
    lists = published.prepare("vg200", "partial")
    assert lists.train.images == ("VG_100K/5.jpg", "VG_100K/2.jpg")
    assert lists.train.labels == (("man", "sky"), ())
    assert lists.train.classes == ("sky", "tree", "man")
    assert lists.test.labels == (("tree",),)
    assert lists.origin["exact"]


def test_without_numbers_the_labels_are_the_names_of_most_objects(derived):
    lists = derived.prepare("vg200", "partial")
    assert lists.train.classes == ("man", "tree", "car")  # 3, 2, 1, then in order
    assert lists.train.labels == (("man", "tree"), ("tree",))
    assert lists.test.labels == (("man", "car"),)
    assert not lists.origin["exact"]
    assert "not comparable to published ones" in lists.notes[0]


def test_numbers_without_names_are_an_error_with_a_way_out(published):
    (published.path / "vg_category_200_names.txt").unlink()
    with pytest.raises(
        MissingFileError, match=r"no vg_category_200_names\.txt .* write their names into it, one a line"
    ):
        published.prepare("vg200", "partial")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("vg_category_200_names.txt", "a\nb\n", "expected 3 names, found 2"),
     ("vg_category_500_labels_index.json", "[]", "images with numbers in"),
     ("vg_category_500_labels_index.json", '{"2.jpg": []}', r"train_list_500\.txt, line 1: .* no labels of"),
     ("vg_category_500_labels_index.json", '{"5.jpg": ["x"]}', r"the labels of '5\.jpg' are no numbers")],
)  # fmt: skip
def test_published_files_that_do_not_fit_are_an_error(published, name, content, said):
    published.write(name, content)
    with pytest.raises(DataError, match=said):
        published.prepare("vg200", "partial")


@pytest.mark.parametrize(
    "objects", ["{}", '[{"image_id": "5", "objects": []}]', '[{"image_id": 5, "objects": [1]}]',
                '[{"image_id": 5, "objects": [{"names": 3}]}]'],
)  # fmt: skip
def test_objects_of_something_else_are_an_error(derived, objects):
    derived.write("objects.json", objects)
    with pytest.raises(DataError, match=r'objects\.json: \[0\] is .* needs "image_id" and "objects"'):
        derived.prepare("vg200", "partial")


def test_without_either_file_what_is_missing_is_said(vg):
    with pytest.raises(MissingFileError, match=r"objects\.json to derive labels from is missing"):
        vg.prepare("vg200", "partial")
