"""COCO's own files, in small and, where they are at hand, the real ones."""

import gzip
import json
from pathlib import Path

import pytest

from datasets.benchmarks.coco import SEEN, UNSEEN
from datasets.records import DataError, MissingFileError

SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "coco2014"
NAMES = [*SEEN, *UNSEEN, "stop sign"]  # in the order of the categories, which is no alphabetical one


def instances(split, rows):
    number = {name: 3 * k + 1 for k, name in enumerate(NAMES)}
    objects = [(image, name) for image, names in rows.items() for name in names]
    return json.dumps({
        "images": [{"id": image, "file_name": f"COCO_{split}_{image:012d}.jpg"} for image in rows],
        "annotations": [{"id": k, "image_id": i, "category_id": number[n]} for k, (i, n) in enumerate(objects)],
        "categories": [{"id": k, "name": name} for name, k in number.items()],
    })  # fmt: skip


@pytest.fixture
def coco(root):
    train = {99: ["dog"], 1000: ["person", "cat", "person"], 30: [], 100: ["stop sign", "bus"]}
    root.write("annotations/instances_train2014.json", instances("train2014", train))
    root.write("annotations/instances_val2014.json", instances("val2014", {7: ["dog"], 8: []}))
    return root


def ids(records):
    return [int(image[-16:-4]) for image in records.images]


def test_partial_labels_are_of_all_images_and_labels_in_the_order_of_the_file(coco):
    lists = coco.prepare("coco", "partial")
    assert ids(lists.train) == [99, 1000, 30, 100]
    assert lists.train.classes == tuple(NAMES)
    assert list(map(set, lists.train.labels)) == [{"dog"}, {"person", "cat"}, set(), {"stop sign", "bus"}]
    assert lists.train.images[0] == "train2014/COCO_train2014_000000000099.jpg"
    assert ids(lists.test) == [7, 8]
    assert lists.origin["protocol"] == "partial"
    assert lists.origin["seed"] is None


def test_single_positives_are_of_annotated_images_in_the_order_of_their_ids_as_texts(coco):
    lists = coco.prepare("coco", "largeloss")
    assert sorted(ids(lists.train) + ids(lists.val)) == [99, 100, 1000]
    kept = [*zip(ids(lists.train), lists.train.labels, strict=True)]
    assert [image for image, _ in kept] == sorted((image for image, _ in kept), key=str)
    assert ids(lists.test) == [7]


def test_the_list_of_splc_says_the_single_label(coco, pairs):
    coco.write("splc/coco_train_singlelabel.txt", ["COCO_train2014_000000000099.jpg,49"])
    lists = coco.prepare("coco", "splc")
    assert pairs(lists.train) == {"train2014/COCO_train2014_000000000099.jpg": {NAMES[49]}}
    assert ids(lists.test) == [7]


def test_other_categories_than_the_80_are_not_the_protocols(coco):
    assert coco.prepare("coco", "partial").origin["exact"] is False


def test_the_list_of_splc_has_to_be_there(coco):
    with pytest.raises(MissingFileError, match=r"coco_train_singlelabel\.txt \(SPLC's and SCPNet's repositories"):
        coco.prepare("coco", "splc")


def test_a_file_of_something_else_is_an_error(coco):
    coco.write("annotations/instances_val2014.json", "{}")
    with pytest.raises(DataError, match=r"instances_val2014\.json: .* use instances_\*\.json"):
        coco.prepare("coco", "partial")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the official annotation files are not here")
def test_the_official_files_give_the_published_numbers_of_images(root):
    for split in ("train2014", "val2014"):
        root.write(
            f"instances_{split}.json", gzip.decompress((SHARED / f"instances_{split}.json.gz").read_bytes()).decode()
        )
    lists = root.prepare("coco", "largeloss")
    assert [len(part.images) for part in (lists.train, lists.val, lists.test)] == [65_665, 16_416, 40_137]
    assert {len(row) for row in lists.train.labels} == {1}
    assert lists.origin["exact"]
