import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from datasets.benchmarks import rap
from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.rap_annotation import OFFICIAL
from datasets.labels import read_labels
from datasets.records import DataError, MissingFileError

ROOT = Path(__file__).parents[3]
RELEASED = ROOT.parent / "shared" / "data" / "release_json"
UNSEEN = (
    "AgeLess16", "BaldHead", "Hat", "Muffler", "Suit-Up", "Short Sleeve", "Cloth Shoes", "Backpack", "Hand Bag",
    "Plastic Bag", "Paper Bag", "Hand Trunk", "Holding", "Pusing", "Pulling", "Carrying by Arm",
)  # fmt: skip
SEEN = tuple(name for name in rap.CLASSES if name not in UNSEEN)
OFFICIAL_NAME = {name: official for official, name in OFFICIAL.items()}
COLOURS = ("up-Black", "low-Black")
ORDER = (COLOURS[0], *reversed(OFFICIAL), COLOURS[1])  # of the columns: evaluated ones are found by name only
COMMON = {name: 1 for name in SEEN if name not in ("Skirt", "Short Skirt", "Dress")}
# In training, Skirt alone is rarer than Hand Bag; counted with the other two it is not.
ROWS = {
    "CAM01_line1.png": COMMON | {"Skirt": 1, "Dress": 1},
    "CAM01_line2.png": COMMON | {"Short Skirt": 1, "Dress": 1},
    "CAM02_line1.png": COMMON | {"Short Skirt": 1, "Dress": 1, "Female": 2},
    "CAM02_line2.png": {"Customer": 1, "Hand Bag": 1, "Short Skirt": 1},
    "CAM03_line1.png": {"Customer": 1, "Hand Bag": 1},
    "CAM04_line1.png": {"Female": 2, "Dress": 1},
    "CAM05_line1.png": {"Female": 1, "Hat": 1, "Hand Bag": 2},
    "CAM06_line1.png": {},
}
NAMES = list(ROWS)
TRAIN_TEST = [([1, 2, 3, 4, 5], [6, 7, 8]), ([1, 2, 3, 4, 5, 6], [7, 8])] + 3 * [([1, 2, 3, 5, 6, 7], [4, 8])]


def column(values):
    cells = np.empty((len(values), 1), dtype=object)
    cells[:, 0] = values
    return cells


def partition(train, test):
    return {"train_index": np.array([train], dtype=np.uint16), "test_index": np.array([test], dtype=np.uint16)}


def table(rows=ROWS, order=ORDER):
    codes = [{OFFICIAL_NAME[name]: code for name, code in row.items()} for row in rows.values()]
    return np.array([[row.get(name, 7 if name in COLOURS else 0) for name in order] for row in codes], dtype=np.uint8)


def annotation(**changes):
    return {
        "partition": column([partition(*rows) for rows in TRAIN_TEST]),
        "label": table(),
        "attribute_chinese": column(["x"] * len(ORDER)),
        "attribute_eng": column(ORDER),
        "attribute_exp": column(["x"] * len(ORDER)),
        "imagesname": column(NAMES),
    } | changes


def save(root, content=None, place="RAP_annotation/RAP_annotation.mat"):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    savemat(root / place, {"RAP_annotation": annotation() if content is None else content})
    return root


def prepare(root, released=None, **options):
    return rap.prepare(Downloads(root, released), seed=0, **options)


def release(root, **lists):
    (root / "RAP").mkdir(exist_ok=True)
    for name, (images, classes) in lists.items():
        (root / "RAP" / f"{name}.json").write_text(json.dumps({"images": images, "classes": list(classes)}))


def by_image(records):
    return dict(zip(records.images, records.labels, strict=True))


def noted(lists, words):
    (note,) = [note for note in lists.notes if words in note]
    return note


def test_the_imitation_has_the_nesting_of_the_official_file(tmp_path):
    d = loadmat(save(tmp_path) / "RAP_annotation/RAP_annotation.mat")["RAP_annotation"][0][0]
    assert d[5][1][0][0] == NAMES[1]
    assert d[3][0][0][0] == "up-Black"
    assert d[1].shape == (8, 53)
    assert (d[0][1][0][0][0][0][0, :] - 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert (d[0][1][0][0][0][1][0, :] - 1).tolist() == [6, 7]


def test_the_lists_are_exactly_these(tmp_path):
    lists = prepare(save(tmp_path))
    assert by_image(lists.train) == {
        "RAP_dataset/CAM01_line1.png": tuple(name for name in SEEN if name != "Short Skirt"),
        "RAP_dataset/CAM01_line2.png": tuple(name for name in SEEN if name != "Skirt"),
        "RAP_dataset/CAM02_line1.png": tuple(name for name in SEEN if name != "Skirt"),
    }
    assert by_image(lists.test) == {
        "RAP_dataset/CAM04_line1.png": ("Female", "Dress"),
        "RAP_dataset/CAM05_line1.png": ("Female", "Hat", "Hand Bag"),
    }
    assert by_image(lists.test_zsl) == {"RAP_dataset/CAM05_line1.png": ("Hat", "Hand Bag")}
    assert lists.val is None


def test_skirt_counts_with_short_skirt_and_dress_among_the_most_frequent(tmp_path):
    lists = prepare(save(tmp_path))
    assert lists.train.classes == SEEN
    assert lists.test_zsl.classes == UNSEEN
    assert lists.test.classes == SEEN + UNSEEN


def test_the_frequencies_that_decide_are_told(tmp_path):
    lists = prepare(save(tmp_path))
    assert noted(lists, "any of the three") == (
        "training images with Skirt 1, Short Skirt 3, Dress 3; with any of the three, which is what Skirt counts as: 4"
    )
    assert noted(lists, "at ranks") == (
        "training images of the labels at ranks 34 to 37, of which 35 are seen: 34 Gathering 3, 35 Carrying by Hand 3, "
        "36 Hand Bag 2, 37 AgeLess16 0"
    )


def test_uncertain_labels_can_be_negative(tmp_path):
    lists = prepare(save(tmp_path), uncertain="negative")
    assert "Female" not in by_image(lists.train)["RAP_dataset/CAM02_line1.png"]
    assert by_image(lists.test) == {
        "RAP_dataset/CAM04_line1.png": ("Dress",),
        "RAP_dataset/CAM05_line1.png": ("Female", "Hat"),
    }
    assert noted(lists, "uncertain") == "3 labels have the code 2, uncertain"


def test_skirts_can_be_merged_as_in_the_release(tmp_path):
    lists = prepare(save(tmp_path), skirts="merged")
    assert set(by_image(lists.train).values()) == {SEEN}
    assert by_image(lists.test)["RAP_dataset/CAM04_line1.png"] == ("Female", "Skirt", "Short Skirt", "Dress")
    assert by_image(lists.test)["RAP_dataset/CAM05_line1.png"] == ("Female", "Hat", "Hand Bag")


@pytest.mark.parametrize("options", [{"uncertain": "maybe"}, {"skirts": "long"}])
def test_an_unknown_choice_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="is none of"):
        prepare(save(tmp_path), **options)


def test_a_partition_can_be_chosen(tmp_path):
    lists = prepare(save(tmp_path), partition=1)
    assert list(by_image(lists.test)) == ["RAP_dataset/CAM05_line1.png"]
    assert lists.origin["partition"] == 1


@pytest.mark.parametrize("number", [5, -1])
def test_a_partition_that_is_not_there_is_refused(tmp_path, number):
    with pytest.raises(DataError, match=rf"has the partitions 0 to 4, there is no {number}$"):
        prepare(save(tmp_path), partition=number)


def test_without_a_released_list_partition_0_is_taken_and_not_called_exact(tmp_path):
    lists = prepare(save(tmp_path))
    assert noted(lists, "partition 0 of 5, the usual one")
    assert (lists.origin["partition"], lists.origin["exact"], lists.origin["seed"]) == (0, False, None)
    assert (lists.origin["uncertain"], lists.origin["skirts"]) == ("positive", "mat")
    assert list(lists.origin["sources"]) == ["RAP_annotation/RAP_annotation.mat"]


RELEASED_TEST = [
    ["/mnt/x/RAP_dataset/CAM06_line1.png", ["Clerk"]],
    ["/mnt/x/RAP_dataset/CAM05_line1.png", ["Hat", "Female", "Hand Bag"]],
]


def test_the_partition_is_found_by_the_released_test_list_which_is_taken_as_it_is(tmp_path):
    release(save(tmp_path), test=(RELEASED_TEST, rap.CLASSES))
    lists = prepare(tmp_path)
    assert by_image(lists.test) == {image: tuple(row) for image, row in RELEASED_TEST}
    assert len(lists.train.images) == 4  # of partition 1, whose row 6 is a training image
    assert (lists.origin["partition"], lists.origin["exact"]) == (1, True)
    assert noted(lists, "have other labels").startswith("1 of 2 images")
    assert noted(lists, "partition 1 of 5: its test images are those of the authors")


@pytest.mark.parametrize(
    ("skirts", "row", "told"),
    [("mat", ["Dress", "Skirt", "Short Skirt"], 1), ("merged", ["Hat"], 0), ("mat", ["Dress"], 0)],
)
def test_a_test_list_with_another_rule_for_skirts_than_in_training_is_told(tmp_path, skirts, row, told):
    images = [RELEASED_TEST[1], [RELEASED_TEST[0][0], row]]
    release(save(tmp_path), test=(images, rap.CLASSES))
    lists = prepare(tmp_path, skirts=skirts)
    assert sum("are one label in the authors' test list and three in training" in note for note in lists.notes) == told


def test_training_images_that_the_released_list_tests_on_are_left_out(tmp_path):
    release(save(tmp_path), test=([["x/CAM01_line1.png", ["Hat"]]], rap.CLASSES))
    lists = prepare(tmp_path)
    assert "RAP_dataset/CAM01_line1.png" not in lists.train.images
    assert noted(lists, "none of them has the test images of the authors")
    assert noted(lists, "1 training images of partition 0 are test images of the authors: left out")


def test_another_partition_than_that_of_the_released_lists_leaves_these_out(tmp_path):
    release(save(tmp_path), test=(RELEASED_TEST, rap.CLASSES))
    lists = prepare(tmp_path, partition=0)
    assert len(lists.test.images) == 2
    assert "RAP_dataset/CAM04_line1.png" in lists.test.images
    assert lists.origin["exact"] is False
    assert noted(lists, "the authors' lists are left out: partition 0 has other test images")


def test_the_partition_of_the_released_lists_can_be_named(tmp_path):
    release(save(tmp_path), test=(RELEASED_TEST, rap.CLASSES))
    lists = prepare(tmp_path, partition=1)
    assert lists.test.images == tuple(image for image, _ in RELEASED_TEST)
    assert lists.origin["exact"] is True


def test_both_released_lists_make_the_annotation_needless(tmp_path):
    release(tmp_path, train=([["1.png", ["Clerk"]]], SEEN), test=(RELEASED_TEST, rap.CLASSES))
    lists = prepare(tmp_path)
    assert (lists.train.images, lists.train.classes) == (("1.png",), SEEN)
    assert (lists.test_zsl.classes, lists.origin["partition"]) == (UNSEEN, None)


def test_a_released_training_list_goes_with_the_annotation(tmp_path):
    train = [["x/CAM01_line1.png", ["Clerk"]], ["x/CAM03_line1.png", ["Customer"]]]
    release(save(tmp_path), train=(train, SEEN), test=(RELEASED_TEST, rap.CLASSES))
    lists = prepare(tmp_path)
    assert by_image(lists.train) == {image: tuple(row) for image, row in train}
    assert len([note for note in lists.notes if "have other labels" in note]) == 2


def test_a_released_training_list_is_not_tested_on_itself(tmp_path):
    release(save(tmp_path), train=([["x/CAM05_line1.png", ["Clerk"]]], SEEN))
    with pytest.raises(DataError, match=r"1 images of .*train\.json are test images of partition 0: choose another"):
        prepare(tmp_path)


@pytest.mark.parametrize("folder", ["RAP_dataset", "RAP/RAP_dataset"])
def test_paths_start_with_the_folder_that_is_there(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    lists = prepare(save(tmp_path, place="RAP_annotation.mat"))
    assert lists.train.images[0] == f"{folder}/CAM01_line1.png"


def test_a_missing_annotation_is_named(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"annotation of RAPv1 is missing: no RAP_annotation/RAP_annotation\.mat"
    ):
        prepare(tmp_path)


def broken_label(code):
    codes = table()
    codes[1, ORDER.index("hs-Hat")] = code
    return codes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": broken_label(3)}, r"labels, row 2, attribute 'Hat': 3 is none of 0, 1, 2$"),
        ({"label": table()[:, :-1]}, r"expected a column for each of 53 attributes, found \(8, 52\)$"),
        ({"label": table()[:-1]}, r"there are 7 rows of labels for 8 images$"),
        ({"imagesname": column([*NAMES[:-1], NAMES[0]])}, r"the image 'CAM01_line1\.png' is listed twice$"),
        (
            {"attribute_eng": column(["x" if n == "hs-Hat" else n for n in ORDER])},
            r"there is no attribute 'hs-Hat': is it RAPv2",
        ),
        ({"attribute_eng": column(["hs-Hat", *ORDER[1:]])}, r"the attribute 'hs-Hat' is listed twice$"),
        ({"partition": column([partition([1, 9], [2])])}, r"partition 0 has row 9 of 8 images$"),
        ({"partition": column([partition([0, 1], [2])])}, r"partition 0 has row 0 of 8 images$"),
        ({"partition": column([partition([1, 2], [2, 3])])}, r"partition 0 has row 2 twice, in training, in test or"),
        ({"partition": column([np.ones(3)])}, r"partition 0 is not a struct of training and test rows$"),
        ({"partition": column([{"train_index": 1}])}, r"partition 0 is not a struct of training and test rows$"),
        ({"partition": column([])}, r"there are no partitions$"),
    ],
)
def test_a_contradiction_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(DataError, match=rf"^[^\n]*RAP_annotation\.mat: {message}"):
        prepare(save(tmp_path, annotation(**changes)))


@pytest.mark.parametrize("content", [np.ones((2, 2)), {"partition": 1, "label": 2}])
def test_another_variable_of_the_name_is_refused(tmp_path, content):
    with pytest.raises(
        DataError, match=r"RAP_annotation is not the struct with images, labels and partitions of RAPv1"
    ):
        prepare(save(tmp_path, content))


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_real_test_list_goes_through_unchanged_and_finds_its_partition(tmp_path):
    content = json.loads((RELEASED / "RAP" / "test.json").read_text())
    names = [image.rpartition("/")[2] for image, _ in content["images"]]
    rows = {name: dict.fromkeys(row, 1) for name, (_, row) in zip(names, content["images"], strict=True)}
    numbers = list(range(9, len(names) + 9))
    parts = [partition([*range(1, 9), *numbers[:10]], numbers[10:]), partition(range(1, 9), numbers[::-1])]
    save(tmp_path, annotation(label=table(ROWS | rows), imagesname=column(NAMES + names), partition=column(parts)))
    lists = prepare(tmp_path, RELEASED)
    assert list(lists.test.images) == [image for image, _ in content["images"]]
    assert [list(row) for row in lists.test.labels] == [row for _, row in content["images"]]
    assert lists.origin["partition"] == 1
    assert noted(lists, "have other labels").startswith("0 of 8,317 images")


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_real_test_frequencies_give_the_seen_labels_but_for_the_last(tmp_path):
    content = json.loads((RELEASED / "RAP" / "test.json").read_text())
    train = [[f"train-{i}.png", row] for i, (_, row) in enumerate(content["images"])]
    release(tmp_path, train=(train, content["classes"]), test=(content["images"], content["classes"]))
    lists = prepare(tmp_path)
    assert set(lists.train.classes) ^ set(SEEN) == {"Hand Bag", "Tight"}
    assert noted(lists, "at ranks").endswith("34 Talking 260, 35 Hand Bag 255, 36 Tight 252, 37 Plastic Bag 222")


@pytest.mark.parametrize("name", ["rap", "rap_sentences"])
def test_prompt_names_are_complete_and_distinct(name):
    notes = read_labels(ROOT / f"configs/labels/{name}.json", "A photo of a {}.")
    assert list(notes.texts) == list(rap.CLASSES)
    assert len({text.lower() for text in notes.texts.values()}) == len(rap.CLASSES)


def test_sentences_are_whole_prompts():
    content = json.loads((ROOT / "configs/labels/rap_sentences.json").read_text())
    assert all(entry["prompt"].startswith("A ") and entry["prompt"].endswith(".") for entry in content.values())
