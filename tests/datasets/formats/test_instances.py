import copy
import gzip
import json
from pathlib import Path

import pytest

from datasets.formats.instances import is_coco, records_of
from datasets.records import DataError

OFFICIAL = Path(__file__).parents[3].parent / "shared" / "data" / "coco2014"
PATH = Path("instances_val.json")
TOY = {
    "info": {"year": 2014},
    "licenses": [],
    "images": [
        {"id": 42, "file_name": "COCO_val2014_000000000042.jpg", "width": 9, "height": 9},
        {"id": 7, "file_name": "für.jpg", "width": 9, "height": 9},
        {"id": 9, "file_name": "empty.jpg", "width": 9, "height": 9},
    ],
    "categories": [
        {"supercategory": "animal", "id": 18, "name": "dog"},
        {"supercategory": "animal", "id": 17, "name": "cat"},
        {"supercategory": "outdoor", "id": 90, "name": "traffic light"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 17, "iscrowd": 0, "bbox": [0, 0, 1, 1], "segmentation": [[0, 0, 1]]},
        {"id": 2, "image_id": 42, "category_id": 18, "iscrowd": 1, "segmentation": {"counts": [9], "size": [3, 3]}},
        {"id": 3, "image_id": 7, "category_id": 18, "iscrowd": 0},
        {"id": 4, "image_id": 7, "category_id": 17, "iscrowd": 0},
    ],
}


@pytest.fixture
def toy():
    return copy.deepcopy(TOY)


def test_images_categories_and_first_mentions_keep_their_order(toy):
    records = records_of(toy, PATH)
    assert records.images == ("COCO_val2014_000000000042.jpg", "für.jpg", "empty.jpg")
    assert records.labels == (("dog",), ("cat", "dog"), ())
    assert (records.classes, records.source) == (("dog", "cat", "traffic light"), "instances_val.json")


def test_an_annotation_of_a_crowd_counts_as_presence(toy):
    assert [a["iscrowd"] for a in toy["annotations"] if a["image_id"] == 42] == [1]
    assert records_of(toy, PATH).labels[0] == ("dog",)


def test_images_without_annotations_are_kept_and_counted(toy):
    assert records_of(toy, PATH).notes == ("images without annotations, which have no labels: 1",)


def test_nothing_is_noted_where_every_image_has_a_label(toy):
    toy["images"].pop()
    assert records_of(toy, PATH).notes == ()


def test_ids_may_be_texts(toy):
    text = json.loads(json.dumps(toy).replace('"id": 7,', '"id": "7",').replace('"image_id": 7,', '"image_id": "7",'))
    assert records_of(text, PATH).labels == records_of(toy, PATH).labels


def test_nothing_is_changed_in_the_content(toy):
    records_of(toy, PATH)
    assert toy == TOY


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (TOY, True),
        ({"images": [], "annotations": []}, True),
        ({"images": [], "categories": []}, True),
        ([{"image_id": 1, "category_id": 2, "score": 0.5}], True),
        ({"images": [["a.jpg", []]], "classes": []}, False),
        ({"images": [["a.jpg", []]], "classes": [], "annotations": "from 2014"}, False),
        ({"images": []}, False),
        ([["a.jpg", []]], False),
        ([], False),
        ("annotations", False),
        (None, False),
    ],
)
def test_files_of_coco_are_told_from_the_release(content, answer):
    assert is_coco(content) is answer


def changed(where, value):
    *way, last = where
    content = copy.deepcopy(TOY)
    part = content
    for key in way:
        part = part[key]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


CAPTION = {"image_id": 7, "id": 1, "caption": "A dog."}
PANOPTIC = {"image_id": 7, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 18}]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"images": TOY["images"], "annotations": [CAPTION]}, ["annotations[0]", "caption", "instances_*.json"]),
        (changed(["annotations"], [PANOPTIC]), ["annotations[0]", "segments_info", "panoptic", "instances_*.json"]),
        (changed(["annotations"], None), ['"annotations"', "missing", "instances_*.json"]),
        (changed(["categories"], None), ['"categories"', "missing"]),
        (changed(["images"], None), ['"images"', "missing"]),
        (changed(["annotations"], {"1": {}}), ['"annotations"', "missing"]),
        ([{"image_id": 7, "category_id": 18, "score": 0.9}], ["detection results", "instances_*.json"]),
        (changed(["annotations", 2, "image_id"], 8), ["annotations[2]", "image_id 8", "images"]),
        (changed(["annotations", 2, "image_id"], "7"), ["annotations[2]", "image_id '7'"]),
        (changed(["annotations", 1, "category_id"], 3), ["annotations[1]", "category_id 3", "categories"]),
        (changed(["annotations", 1, "category_id"], None), ["annotations[1]", '"category_id"']),
        (changed(["annotations", 1, "image_id"], [7]), ["annotations[1]", '"image_id"']),
        (changed(["annotations", 1], "dog"), ["annotations[1] is 'dog'"]),
        (changed(["categories", 2, "name"], "dog"), ["categories[2]", "'dog'", "twice"]),
        (changed(["categories", 2, "id"], 18), ["categories[2]", "id 18", "twice"]),
        (changed(["categories", 1, "name"], " "), ["categories[1]", '"name"']),
        (changed(["categories"], []), ["annotations[0]", "category_id 17"]),
        (changed(["images", 1, "id"], 42), ["images[1]", "id 42", "twice"]),
        (changed(["images", 1, "id"], 7.0), ["images[1]", '"id"']),
        (changed(["images", 1, "file_name"], None), ["images[1]", '"file_name"']),
        (changed(["images", 1, "file_name"], ""), ["images[1]", '"file_name"']),
        (changed(["images", 1], "für.jpg"), ["images[1] is 'für.jpg'"]),
        (changed(["images", 2, "file_name"], "für.jpg"), ["images[2]", "other labels", "images[1]"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_entry(content, named):
    with pytest.raises(DataError) as caught:
        records_of(content, PATH)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ["instances_val.json", *named]), message


def test_a_long_entry_is_cut_in_the_message():
    with pytest.raises(DataError) as caught:
        records_of(changed(["images", 0], {"file_name": "x" * 5000}), PATH)
    assert len(str(caught.value)) < 200


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the annotation files of COCO are not here")
def test_the_validation_images_of_coco_2014_have_the_published_counts():
    content = json.loads(gzip.decompress((OFFICIAL / "instances_val2014.json.gz").read_bytes()))
    records = records_of(content, PATH)
    assert (len(records.images), len(records.classes)) == (40_137, 80)
    assert records.classes[:2] == ("person", "bicycle")
    assert sum(map(len, records.labels)) == len(content["annotations"])
