"""CUB-200-2011 in its own files, with 312 attributes and few images."""

import pytest

from datasets.records import DataError

IMAGES = {1: "001.A/one.jpg", 2: "001.A/two.jpg", 4: "002.B/three.jpg", 5: "002.B/four.jpg", 6: "002.B/five.jpg"}
SPLIT = {1: 1, 2: 0, 4: 1, 5: 1, 6: 0}
PRESENT = {1: [3, 312], 2: [1], 4: [], 5: [7], 6: [2, 3]}
TOP = "CUB_200_2011"


@pytest.fixture
def cub(root):
    root.write("attributes.txt", [f"{k} has_bill_shape::shape_{k}" for k in range(1, 313)])
    root.write(f"{TOP}/images.txt", [f"{number} {name}" for number, name in IMAGES.items()])
    root.write(f"{TOP}/train_test_split.txt", [f"{number} {part}" for number, part in SPLIT.items()])
    rows = [f"{i} {k} {int(k in PRESENT[i])} 3 27.708" for i in IMAGES for k in range(1, 313)]
    rows[5] += " 0 0"  # some lines of the download are longer
    root.write(f"{TOP}/attributes/image_attribute_labels.txt", rows)
    (root.path / TOP / "images").mkdir()
    return root


def test_official_parts_with_the_attributes_that_are_present(cub, pairs):
    lists = cub.prepare("cub", "largeloss")
    known = pairs(lists.train) | pairs(lists.val)
    folder = f"{TOP}/images"
    assert known.keys() == {f"{folder}/{IMAGES[i]}" for i, part in SPLIT.items() if part}
    assert known[f"{folder}/002.B/four.jpg"] <= {"bill shape: shape 7"}
    assert known[f"{folder}/002.B/three.jpg"] == set()
    assert pairs(lists.test)[f"{folder}/002.B/five.jpg"] == {"bill shape: shape 2", "bill shape: shape 3"}
    assert len(lists.train.classes) == 312


def test_phrases_of_scpnet_are_the_labels_if_they_are_there(cub, pairs):
    cub.write("cub_labels.txt", [f"bill {k}" for k in range(312)])
    cub.write("cub_train.txt", ["001.A/one.jpg, 2"])
    lists = cub.prepare("cub", "splc")
    assert pairs(lists.train) == {f"{TOP}/images/001.A/one.jpg": {"bill 2"}}
    assert pairs(lists.test)[f"{TOP}/images/001.A/two.jpg"] == {"bill 0"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("attributes.txt", ["1 a"], "expected 312 attributes, found 1"),
     ("cub_labels.txt", ["a", "b"], "expected 312 names of labels, one a line, found 2"),
     (f"{TOP}/images.txt", ["one.jpg"], r"images\.txt, line 1: 'one\.jpg' is not a number and a text"),
     (f"{TOP}/train_test_split.txt", ["1 1"], r"train_test_split\.txt: image 2 has no 0 or 1"),
     (f"{TOP}/attributes/image_attribute_labels.txt", ["1 5"], "line 1: expected an image, an attribute and 0 or 1"),
     (f"{TOP}/attributes/image_attribute_labels.txt", ["1 313 1 3 2"], "line 1: expected an image"),
     (f"{TOP}/attributes/image_attribute_labels.txt", ["1 1 yes 3 2"], "line 1: expected an image")],
)  # fmt: skip
def test_a_file_that_is_not_what_its_name_says_is_an_error(cub, name, content, said):
    cub.write(name, content)
    with pytest.raises(DataError, match=said):
        cub.prepare("cub", "largeloss")
