import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from datasets.benchmarks import pa100k
from datasets.benchmarks.downloads import Downloads
from datasets.labels import read_labels
from datasets.records import DataError, MissingFileError

ROOT = Path(__file__).parents[3]
RELEASED = ROOT.parent / "shared" / "data" / "release_json"
OFFICIAL = tuple(pa100k.OFFICIAL)
UNSEEN = (
    "AgeOver60", "AgeLess18", "Hat", "HoldObjectsInFront", "Upper Stride", "Upper Splice", "Lower Stripe",
    "Lower Pattern", "Long Coat", "boots",
)  # fmt: skip
SEEN = tuple(name for name in pa100k.CLASSES if name not in UNSEEN)
SEEN_OFFICIAL = [name for name in OFFICIAL if pa100k.OFFICIAL[name] in SEEN]
# Every seen label on two images and every unseen one on at most one; both parts of the first row are official names.
TRAIN = [SEEN_OFFICIAL, [*SEEN_OFFICIAL, "Hat"], ["boots", "LongCoat"], []]
VAL = [["HandBag", "Hat"], []]
TEST = [["HandBag", "Skirt&Dress"], ["Female", "boots"], []]


def column(texts):
    cells = np.empty((len(texts), 1), dtype=object)
    cells[:, 0] = texts
    return cells


def annotation(order=OFFICIAL, **changes):
    variables, first = {"attributes": column(order)}, 1
    for part, rows in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        variables[f"{part}_images_name"] = column([f"{first + i:06d}.jpg" for i in range(len(rows))])
        variables[f"{part}_label"] = np.array([[name in row for name in order] for row in rows], dtype=np.uint8)
        first += len(rows)
    return variables | changes


def save(root, variables=None, place="annotation.mat"):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    savemat(root / place, variables or annotation())
    return root


def prepare(root, released=None):
    return pa100k.prepare(Downloads(root, released), seed=0)


def release(root, **lists):
    (root / "PA100K").mkdir(exist_ok=True)
    for name, (images, classes) in lists.items():
        (root / "PA100K" / f"{name}.json").write_text(json.dumps({"images": images, "classes": list(classes)}))


def test_the_imitation_has_the_nesting_of_the_official_file(tmp_path):
    from scipy.io import loadmat

    mat = loadmat(save(tmp_path) / "annotation.mat")
    assert mat["train_images_name"][1][0][0] == "000002.jpg"
    assert mat["attributes"][9][0][0] == "HandBag"


def test_the_lists_are_exactly_these(tmp_path):
    lists = prepare(save(tmp_path))
    folder = "release_data/release_data"
    assert (lists.train.images, lists.train.labels) == ((f"{folder}/000001.jpg",), (SEEN,))
    assert dict(zip(lists.val.images, lists.val.labels, strict=True)) == {f"{folder}/000005.jpg": ("Hat", "Hand Bag")}
    assert lists.test.images == (f"{folder}/000007.jpg", f"{folder}/000008.jpg")
    assert lists.test.labels == (("Hand Bag", "Skirt and Dress"), ("Female", "boots"))
    assert (lists.test_zsl.images, lists.test_zsl.labels) == ((f"{folder}/000008.jpg",), (("boots",),))


def test_the_most_frequent_labels_are_seen(tmp_path):
    lists = prepare(save(tmp_path))
    assert lists.train.classes == SEEN
    assert lists.test_zsl.classes == UNSEEN
    assert lists.test.classes == lists.val.classes == SEEN + UNSEEN


def test_columns_are_read_by_name(tmp_path):
    expected = prepare(save(tmp_path / "a"))
    lists = prepare(save(tmp_path / "b", annotation(order=OFFICIAL[::-1])))
    for name in ("train", "val", "test", "test_zsl"):
        assert getattr(lists, name)[:3] == getattr(expected, name)[:3]


@pytest.mark.parametrize("place", ["annotation.mat", "PA-100K/annotation.mat", "annotation/annotation.mat"])
def test_origin_says_what_the_lists_are_made_of(tmp_path, place):
    origin = prepare(save(tmp_path, place=place)).origin
    assert (origin["benchmark"], origin["exact"], origin["seed"]) == ("pa100k", True, None)
    assert list(origin["sources"]) == [place]


@pytest.mark.parametrize("folder", ["release_data/release_data", "data", "release_data", "PA-100K/data"])
def test_paths_start_with_the_folder_that_is_there(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    assert prepare(save(tmp_path)).train.images == (f"{folder}/000001.jpg",)


def test_a_missing_annotation_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"annotation of PA100K is missing: no annotation\.mat or PA-100K"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ([*OFFICIAL[:-1], "Boots"], "'Boots', 'boots'"),
        (OFFICIAL[:-1], "'boots'"),
        ([*OFFICIAL, "Hat"], "'Hat'"),
    ],
    ids=["unknown", "missing", "repeated"],
)
def test_other_attributes_are_named(tmp_path, attributes, shown):
    save(tmp_path, annotation(attributes=column(attributes)))
    with pytest.raises(DataError, match=rf"annotation\.mat: its attributes are not the 26 of PA100K: {shown}$"):
        prepare(tmp_path)


def test_rows_without_names_are_refused(tmp_path):
    save(tmp_path, annotation(val_images_name=column(["000005.jpg"])))
    with pytest.raises(DataError, match=r"annotation\.mat: val_label has 2 rows, val_images_name 1 names$"):
        prepare(tmp_path)


def test_an_unknown_code_is_named_with_row_and_attribute(tmp_path):
    variables = annotation()
    variables["test_label"][1, OFFICIAL.index("HandBag")] = 2
    save(tmp_path, variables)
    with pytest.raises(DataError, match=r"annotation\.mat: test_label, row 2, attribute 'Hand Bag': 2 is none of 0, 1"):
        prepare(tmp_path)


def test_a_released_test_list_is_taken_as_it_is(tmp_path):
    images = [["/mnt/x/000008.jpg", ["boots", "Female"]], ["/mnt/x/000007.jpg", ["Hat"]], ["/mnt/x/000009.jpg", []]]
    release(save(tmp_path), test=(images, pa100k.CLASSES))
    lists = prepare(tmp_path)
    assert lists.test.images == tuple(image for image, _ in images)
    assert lists.test.labels == (("boots", "Female"), ("Hat",), ())
    assert lists.test_zsl.labels == (("boots",), ("Hat",))
    assert lists.train.labels == (SEEN,)
    assert set(lists.origin["sources"]) == {"annotation.mat", "PA100K/test.json"}
    (note,) = [note for note in lists.notes if "have other labels" in note]
    assert note.startswith("1 of 3 images of ")


def test_a_released_training_list_of_all_labels_is_filtered_by_the_rule(tmp_path):
    rows = [[f"x/{i}.jpg", [pa100k.OFFICIAL[name] for name in row]] for i, row in enumerate(TRAIN)]
    release(save(tmp_path), train=([*rows, ["x/9.jpg", ["Female"]]], pa100k.CLASSES))
    lists = prepare(tmp_path)
    assert lists.train.images == ("x/0.jpg", "x/9.jpg")
    assert lists.train.labels == (SEEN, ("Female",))


def test_a_released_training_list_of_the_seen_labels_decides_which_these_are(tmp_path):
    seen = pa100k.CLASSES[:16]
    release(save(tmp_path), train=([["x/1.jpg", ["Hat"]], ["x/2.jpg", []]], seen))
    lists = prepare(tmp_path)
    assert (lists.train.images, lists.train.classes) == (("x/1.jpg", "x/2.jpg"), seen)
    assert lists.test_zsl.classes == pa100k.CLASSES[16:]


def test_both_released_lists_make_the_annotation_needless(tmp_path):
    release(tmp_path, train=([["1.jpg", ["Hat"]]], pa100k.CLASSES[:16]), test=([["2.jpg", ["boots"]]], pa100k.CLASSES))
    lists = prepare(tmp_path)
    assert (lists.train.images, lists.test.images, lists.val) == (("1.jpg",), ("2.jpg",), None)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_real_test_list_goes_through_unchanged(tmp_path):
    lists = prepare(save(tmp_path), RELEASED)
    content = json.loads((RELEASED / "PA100K" / "test.json").read_text())
    assert list(lists.test.images) == [image for image, _ in content["images"]]
    assert [list(row) for row in lists.test.labels] == [row for _, row in content["images"]]
    assert list(lists.test.classes) == content["classes"] == list(pa100k.CLASSES)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_real_test_frequencies_give_the_papers_seen_labels(tmp_path):
    content = json.loads((RELEASED / "PA100K" / "test.json").read_text())
    train = [[f"train-{i}.png", row] for i, (_, row) in enumerate(content["images"])]
    release(tmp_path, train=(train, content["classes"]), test=(content["images"], content["classes"]))
    lists = prepare(tmp_path)
    counts = Counter(label for _, row in content["images"] for label in row)
    assert set(lists.train.classes) == {name for name, _ in counts.most_common(16)} == set(SEEN)


@pytest.mark.parametrize("name", ["pa100k", "pa100k_sentences"])
def test_prompt_names_are_complete_and_distinct(name):
    notes = read_labels(ROOT / f"configs/labels/{name}.json", "A photo of a {}.")
    assert list(notes.texts) == list(pa100k.CLASSES)
    assert len({text.lower() for text in notes.texts.values()}) == len(pa100k.CLASSES)


def test_sentences_are_whole_prompts():
    content = json.loads((ROOT / "configs/labels/pa100k_sentences.json").read_text())
    assert all(entry["prompt"].startswith("A ") and entry["prompt"].endswith(".") for entry in content.values())
