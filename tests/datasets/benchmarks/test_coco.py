import gzip
import json
from pathlib import Path

import pytest

from datasets.benchmarks import coco
from datasets.benchmarks.downloads import Downloads
from datasets.records import DataError, MissingFileError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
DROPPED = ("stop sign", "traffic light")
# Ids with gaps, as in the official files, and an order that is not that of the labels.
CATEGORIES = {name: 3 * i + 1 for i, name in enumerate(sorted((*coco.SEEN, *coco.UNSEEN, *DROPPED)))}
TRAIN = {
    9: ["person", "person", "stop sign"],
    25: ["person", "bus"],
    30: [],
    34: ["stop sign"],
    36: ["cat"],
    49: ["mouse"],
}
VAL = {42: ["person", "dog"], 73: ["stop sign"], 74: ["bicycle", "bicycle"], 133: [], 136: ["dog", "cat"]}
TEST_65 = [
    ["/mnt/nas/trainval2014/COCO_val2014_000000000136.jpg", ["cat", "dog", "cat"]],
    ["/mnt/nas/trainval2014/COCO_val2014_000000000042.jpg", ["person", "dog"]],
]
TEST_17 = [[TEST_65[0][0], ["dog", "cat"]], [TEST_65[1][0], ["dog"]]]


def instances(rows, split, **changes):
    annotations = [
        {"image_id": image, "category_id": CATEGORIES[name], "iscrowd": int(k == 0), "bbox": [0, 0, 1, 1]}
        for image, names in rows.items()
        for k, name in enumerate(names)
    ]
    content = {
        "images": [{"id": image, "file_name": f"COCO_{split}_{image:012d}.jpg"} for image in rows],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations)],
        "categories": [{"id": number, "name": name, "supercategory": "x"} for name, number in CATEGORIES.items()],
    }
    return content | changes


class Root:
    def __init__(self, path):
        self.path = path
        self.write("annotations/instances_train2014.json", instances(TRAIN, "train2014"))
        self.write("annotations/instances_val2014.json", instances(VAL, "val2014"))

    def write(self, name, content):
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def release(self, **changes):
        lists = {
            "test_65": {"images": TEST_65, "classes": [*coco.SEEN, *coco.UNSEEN]},
            "test_17": {"images": TEST_17, "classes": list(coco.UNSEEN)},
        }
        for name, content in (lists | changes).items():
            if content is not None:
                self.write(f"annotations/{name}_filtered.json", content)

    def prepare(self, seed=0, **options):
        return coco.prepare(Downloads(self.path), seed=seed, **options)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


@pytest.fixture
def whole_sample(monkeypatch):
    monkeypatch.setattr(coco, "SAMPLE", coco.VAL2014)


def pairs(records):
    return dict(zip(records.images, map(set, records.labels), strict=True))


def test_there_are_48_seen_and_17_other_unseen_labels():
    assert (len(set(coco.SEEN)), len(set(coco.UNSEEN)), len({*coco.SEEN, *coco.UNSEEN})) == (48, 17, 65)


@pytest.mark.usefixtures("whole_sample")
def test_training_images_have_a_seen_label_and_no_unseen_one(root):
    assert pairs(root.prepare().train) == {
        "train2014/COCO_train2014_000000000009.jpg": {"person"},
        "train2014/COCO_train2014_000000000049.jpg": {"mouse"},
    }


@pytest.mark.usefixtures("whole_sample")
def test_the_substitute_follows_the_rule_of_the_paper(root):
    lists = root.prepare()
    assert pairs(lists.test) == {
        "val2014/COCO_val2014_000000000042.jpg": {"person", "dog"},
        "val2014/COCO_val2014_000000000074.jpg": {"bicycle"},
        "val2014/COCO_val2014_000000000136.jpg": {"dog", "cat"},
    }
    assert pairs(lists.test_zsl) == {
        "val2014/COCO_val2014_000000000042.jpg": {"dog"},
        "val2014/COCO_val2014_000000000136.jpg": {"dog", "cat"},
    }


@pytest.mark.usefixtures("whole_sample")
def test_classes_are_in_the_order_of_the_release_whatever_that_of_the_categories(root):
    lists = root.prepare()
    classes = (lists.train.classes, lists.test.classes, lists.test_zsl.classes)
    assert classes == (coco.SEEN, coco.SEEN + coco.UNSEEN, coco.UNSEEN)


@pytest.mark.usefixtures("whole_sample")
def test_what_is_left_out_is_counted(root):
    notes = root.prepare().notes
    assert "of 6 training images, 2 have an unseen label and 2 no seen one: left out" in notes
    assert "of 5 test images, 2 have no label: left out" in notes


@pytest.mark.usefixtures("whole_sample")
def test_images_without_annotations_are_counted(root):
    path = root.path / "annotations/instances_val2014.json"
    assert f"{path}: images without annotations, which have no labels: 1" in root.prepare().notes


def big_val(root, order=1):
    rows = {image: ["person", "dog"] for image in range(1, 101)[::order]}
    root.write("annotations/instances_val2014.json", instances(rows, "val2014"))


def test_the_substitute_is_as_large_a_part_of_val2014_as_that_of_the_paper(root):
    big_val(root)
    assert len(root.prepare().test.images) == round(100 * 6_608 / 40_504)


def test_the_substitute_depends_on_the_seed_alone(root):
    big_val(root)
    first, other = set(root.prepare(seed=1).test.images), set(root.prepare(seed=2).test.images)
    big_val(root, order=-1)
    assert first == set(root.prepare(seed=1).test.images)
    assert first != other


def test_the_substitute_says_that_it_is_one_and_what_makes_the_images_exact(root):
    big_val(root)
    lists = root.prepare(seed=5)
    assert (lists.origin["test_split"], lists.origin["seed"], lists.origin["exact"]) == ("substitute", 5, False)
    assert any(
        all(part in note for part in ("cannot be derived", "test_65_filtered.json", "seed 5", "not comparable"))
        for note in lists.notes
    )


def test_with_the_authors_lists_the_test_lists_are_exactly_theirs(root):
    root.release()
    lists = root.prepare()
    assert lists.test.images == tuple(image for image, _ in TEST_65)
    assert lists.test.labels == (("cat", "dog"), ("person", "dog"))
    assert lists.test_zsl.images == tuple(image for image, _ in TEST_17)
    assert lists.test_zsl.labels == (("dog", "cat"), ("dog",))


def test_the_origin_of_the_authors_lists_is_exact_and_needs_no_seed(root):
    root.release()
    origin = root.prepare().origin
    assert (origin["benchmark"], origin["test_split"], origin["seed"], origin["exact"]) == (
        "coco",
        "released",
        None,
        True,
    )
    assert set(origin["sources"]) == {
        f"annotations/{name}.json"
        for name in ("instances_train2014", "instances_val2014", "test_65_filtered", "test_17_filtered")
    }


def test_the_training_list_does_not_depend_on_the_test_list(root, monkeypatch):
    root.release()
    released = root.prepare().train
    (root.path / "annotations/test_65_filtered.json").unlink()
    monkeypatch.setattr(coco, "SAMPLE", coco.VAL2014)
    assert root.prepare().train == released


def test_without_the_authors_zsl_list_it_is_derived_from_theirs_of_all_labels(root):
    root.release(test_17=None)
    assert pairs(root.prepare().test_zsl) == {TEST_65[0][0]: {"dog", "cat"}, TEST_65[1][0]: {"dog"}}


@pytest.mark.usefixtures("whole_sample")
def test_the_authors_zsl_list_alone_is_not_used(root):
    root.release(test_65=None)
    lists = root.prepare()
    assert lists.origin["test_split"] == "substitute"
    assert lists.test_zsl.images[0].startswith("val2014/")


@pytest.mark.parametrize(
    "wrong",
    [["x/COCO_val2014_000000000042.jpg", ["dog"]], ["x/COCO_val2014_000000009999.jpg", ["dog", "person"]]],
)
def test_a_released_list_whose_labels_are_not_the_official_ones_is_not_exact(root, wrong):
    root.release(test_65={"images": [TEST_65[0], wrong], "classes": [*coco.SEEN, *coco.UNSEEN]}, test_17=None)
    lists = root.prepare()
    assert not lists.origin["exact"]
    assert "1 of 2 test images have other labels in instances_val2014.json, or are not in it" in lists.notes


def test_released_lists_that_contradict_each_other_are_not_exact(root):
    root.release(test_17={"images": TEST_17[:1], "classes": list(coco.UNSEEN)})
    lists = root.prepare()
    assert not lists.origin["exact"]
    assert "1 images of test_17_filtered.json do not agree with those of test_65_filtered.json" in lists.notes


def test_without_val2014_the_authors_list_is_taken_and_a_note_says_so(root):
    root.release()
    (root.path / "annotations/instances_val2014.json").unlink()
    lists = root.prepare()
    assert len(lists.test.images) == 2
    assert any("not compared" in note for note in lists.notes)


def test_the_authors_training_list_takes_the_place_of_train2014(root):
    root.release(train_48={"images": [["/mnt/b.jpg", ["mouse"]]], "classes": list(coco.SEEN)})
    (root.path / "annotations/instances_train2014.json").unlink()
    assert pairs(root.prepare().train) == {"/mnt/b.jpg": {"mouse"}}


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("train_48", coco.SEEN[1:]),
        ("test_65", (*coco.SEEN, *coco.UNSEEN, "stop sign")),
        ("test_17", (*coco.UNSEEN[:-1], "fox")),
    ],
)
def test_a_released_list_of_other_classes_is_an_error(root, name, classes):
    root.release(**{name: {"images": [["a.jpg", []]], "classes": list(classes)}})
    with pytest.raises(DataError, match=rf"{name}_filtered\.json: its classes are not the"):
        root.prepare()


@pytest.mark.parametrize("folder", ["", "annotations/"])
def test_the_file_of_zsi_gives_the_test_images_that_have_annotations(root, folder):
    rows = {image: names for image, names in VAL.items() if image in (42, 73, 133)}
    root.write(f"{folder}instances_val2014_gzsi_48_17.json", instances(rows, "val2014"))
    lists = root.prepare()
    assert pairs(lists.test) == {"val2014/COCO_val2014_000000000042.jpg": {"person", "dog"}}
    assert (lists.origin["test_split"], lists.origin["seed"], lists.origin["exact"]) == ("zsi", None, True)


def test_the_authors_list_goes_before_that_of_zsi(root):
    root.release()
    root.write("instances_val2014_gzsi_48_17.json", instances({}, "val2014"))
    assert root.prepare().origin["test_split"] == "released"


def test_annotation_files_may_be_in_the_root(root):
    root.release()
    for path in list((root.path / "annotations").iterdir()):
        path.rename(root.path / path.name)
    assert (len(root.prepare().train.images), len(root.prepare().test.images)) == (2, 2)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_file_is_named(root, split):
    (root.path / f"annotations/instances_{split}2014.json").unlink()
    with pytest.raises(MissingFileError, match=rf"no annotations/instances_{split}2014\.json or instances_{split}2014"):
        root.prepare()


CAPTIONS = {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1, "image_id": 1, "caption": "A dog."}]}
PERSON = [{"id": 1, "name": "person", "keypoints": ["nose"]}]
PANOPTIC = [{"image_id": 9, "file_name": "9.png", "segments_info": []}]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (CAPTIONS, "caption"),
        (instances({}, "train2014", categories=PERSON), "no category 'airplane', 'apple', 'backpack' and 61 more"),
        (instances({}, "train2014", annotations=PANOPTIC), "panoptic"),
        (instances({}, "train2014", annotations=None), "pycocotools stops"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5}], "expected the object annotations"),
        ('{"images": [{"id": 9', "broken JSON"),
    ],
)
def test_a_wrong_kind_of_file_is_said_in_one_line_with_its_name(root, content, named):
    root.write("annotations/instances_train2014.json", content)
    with pytest.raises(DataError) as caught:
        root.prepare()
    assert f"{root.path}/annotations/instances_train2014.json" in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("whole_sample")
def test_nothing_is_printed(root, capsys):
    root.prepare()
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("whole_sample")
def test_progress_is_over_the_annotation_files(root):
    calls = []
    root.prepare(progress=lambda items, text: calls.append((len(items), text)) or items)
    assert calls == [(2, "annotation files of COCO")]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the official annotation files are not here")
def test_the_official_files_and_the_authors_test_lists_give_the_published_numbers(tmp_path):
    for split in ("train2014", "val2014"):
        packed = SHARED / "coco2014" / f"instances_{split}.json.gz"
        (tmp_path / f"instances_{split}.json").write_bytes(gzip.decompress(packed.read_bytes()))
    lists = coco.prepare(Downloads(tmp_path, SHARED / "release_json"), seed=0)
    assert [len(records.images) for records in lists[:3]] == [44_909, 6_392, 2_729]
    assert [len(records.classes) for records in lists[:3]] == [48, 65, 17]
    assert lists.origin["exact"]


@pytest.mark.parametrize(("split", "other"), [("train2014", "val2014"), ("val2014", "train2014")])
def test_a_file_under_the_name_of_the_other_part_is_refused(root, split, other):
    root.write(f"annotations/instances_{split}.json", instances(TRAIN, other))
    with pytest.raises(DataError, match=rf"instances_{split}\.json: 'COCO_{other}_0+9\.jpg' is an image of {other}"):
        root.prepare()
