import json

import pytest

from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.released import comparison, differing, find_released, without_images
from datasets.records import DataError, Records

CLASSES = ("cat", "dog", "sun")


def records(rows, classes=CLASSES, source="a.json"):
    return Records(tuple(rows), tuple(map(tuple, rows.values())), classes, source)


@pytest.fixture
def write(tmp_path):
    def write(name, classes, images=(("x/1.jpg", ["cat", "cat"]),)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"images": images, "classes": classes}))
        return tmp_path

    return write


def found(root):
    return find_released(Downloads(root), "Zoo", CLASSES, 2)


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert found(tmp_path) == (None, None, None)
    assert found(tmp_path).final == {}


@pytest.mark.parametrize("name", ["Zoo/test.json", "test.json"])
def test_a_test_list_is_final(write, name):
    lists = found(write(name, ["sun", "dog", "cat"]))
    assert lists.final == {"test": lists.test}
    assert lists.test.images == ("x/1.jpg",)


def test_a_training_list_of_all_labels_is_not_final(write):
    lists = found(write("Zoo/train.json", CLASSES))
    assert (lists.final, lists.seen) == ({}, None)
    assert lists.train.classes == CLASSES


def test_a_training_list_of_as_many_labels_as_are_seen_is_final_and_says_which(write):
    lists = found(write("Zoo/train.json", ["sun", "cat"]))
    assert lists.seen == ("sun", "cat")
    assert lists.final == {"train": lists.train}


@pytest.mark.parametrize(
    ("name", "classes", "shown"),
    [
        ("test.json", ["cat", "dog"], "'sun'"),
        ("test.json", ["cat", "dog", "sun", "fox"], "'fox'"),
        ("train.json", ["cat"], "'dog', 'sun'"),
        ("train.json", ["cat", "fox"], "'dog', 'fox', 'sun'"),
    ],
)
def test_a_list_of_other_labels_is_refused(write, name, classes, shown):
    root = write(f"Zoo/{name}", classes)
    with pytest.raises(DataError, match=rf"{name}: its classes are not the 3 of Zoo: {shown}$"):
        found(root)


def test_notes_say_what_reading_merged(write):
    root = write("Zoo/test.json", CLASSES, [["1.jpg", ["cat"]], ["1.jpg", ["cat"]]])
    (note,) = found(root).notes
    assert note.endswith("test.json: 1 repeated mentions of images with the same labels are counted once")


def test_images_are_compared_by_file_name_and_labels_as_sets():
    given = records({"/mnt/1.jpg": ["cat", "dog"], "C:\\x\\2.jpg": ["sun"], "3.jpg": [], "4.jpg": []})
    official = records({"a/1.jpg": ["dog", "cat"], "a/2.jpg": ["sun", "cat"], "a/3.jpg": []}, source="b.mat")
    assert differing(given, official) == 2
    assert comparison(given, official) == "2 of 4 images of a.json have other labels in b.mat, or are not in it"


def test_labels_that_only_one_list_knows_do_not_differ():
    assert differing(records({"1.jpg": ["cat"]}, ("cat", "dog")), records({"1.jpg": ["cat", "sun"]})) == 0


def test_images_are_left_out_by_file_name():
    left = without_images(records({"a/1.jpg": ["cat"], "a/2.jpg": ["dog"]}), ["b\\1.jpg", "3.jpg"])
    assert left == records({"a/2.jpg": ["dog"]})
