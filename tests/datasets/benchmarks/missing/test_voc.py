"""VOC as PASCAL has it: XML files and the list of all images for 2007, a list of each class for 2012."""

import pytest

from datasets.benchmarks.missing import protocols
from datasets.benchmarks.missing.voc import CLASSES
from datasets.records import DataError, MissingFileError

TRAIN = {"000012": [("car", 0)], "000005": [("chair", 1), ("sofa", 0), ("chair", 0)], "000007": [("dog", 1)]}
TEST = {"000001": [("dog", 0), ("person", 0)]}
IN_2012 = {  # values of the lists, of the classes that are not absent everywhere
    "train": {"2008_000008": {"horse": 1, "person": 1}, "2008_000002": {"tvmonitor": 1, "chair": 0}, "2007_000063": {}},
    "val": {"2009_000001": {"person": 1, "bird": 1}, "2008_000009": {"cow": 1}},
}


def xml(stem, objects):
    parts = "".join(f"<object><name>{n}</name><difficult>{d}</difficult></object>" for n, d in objects)
    return f"<annotation><filename>{stem}.jpg</filename>{parts}</annotation>"


@pytest.fixture
def voc2007(root):
    for part, images in (("trainval", TRAIN), ("test", TEST)):
        root.write(f"VOCdevkit/VOC2007/ImageSets/Main/{part}.txt", images)
        for stem, objects in images.items():
            root.write(f"VOCdevkit/VOC2007/Annotations/{stem}.xml", xml(stem, objects))
            root.write(f"VOCdevkit/VOC2007/JPEGImages/{stem}.jpg", "")
    return root


@pytest.fixture
def voc2012(root):
    for part, images in IN_2012.items():
        for name in CLASSES:
            lines = [f"{stem} {values.get(name, -1):2d}" for stem, values in images.items()]
            root.write(f"ImageSets/Main/{name}_{part}.txt", lines)
    return root


def test_images_are_in_the_order_of_the_list_and_difficult_objects_are_absent(voc2007, pairs):
    lists = voc2007.prepare("voc2007", "partial")
    folder = "VOCdevkit/VOC2007/JPEGImages"
    assert lists.train.images == tuple(f"{folder}/{stem}.jpg" for stem in TRAIN)
    assert list(map(set, lists.train.labels)) == [{"car"}, {"chair", "sofa"}, set()]
    assert lists.train.classes == lists.test.classes == CLASSES
    assert pairs(lists.test) == {f"{folder}/000001.jpg": {"dog", "person"}}
    assert (lists.test_zsl, lists.val) == (None, None)
    assert any("difficult objects, left out: 2" in note for note in lists.notes)


def test_labels_that_voc_does_not_have_are_an_error(voc2007):
    voc2007.write("VOCdevkit/VOC2007/Annotations/000012.xml", xml("000012", [("lorry", 0)]))
    with pytest.raises(DataError, match=r"trainval\.txt: 'lorry' not among the 20 labels"):
        voc2007.prepare("voc2007", "partial")


def test_classes_are_the_20_in_alphabetical_order():
    assert len(CLASSES) == 20
    assert list(CLASSES) == sorted(CLASSES)


def test_labels_of_2012_are_those_with_a_one_and_images_in_the_order_of_their_names(voc2012):
    sources = protocols.READERS["voc2012", "largeloss"](protocols.Downloads(voc2012.path), protocols.plain)
    assert sources.train.images == tuple(f"JPEGImages/{s}.jpg" for s in ("2007_000063", "2008_000002", "2008_000008"))
    assert sources.train.labels == ((), ("tvmonitor",), ("horse", "person"))
    assert sources.test.labels == (("cow",), ("bird", "person"))


def test_the_list_of_scpnet_says_the_single_label(voc2012, pairs):
    voc2012.write("dataset/voc_train.txt", ["2008_000008.jpg,12", "2008_000002.jpg,19"])
    lists = voc2012.prepare("voc2012", "splc")
    assert pairs(lists.train) == {"JPEGImages/2008_000008.jpg": {"horse"}, "JPEGImages/2008_000002.jpg": {"tvmonitor"}}
    assert set(lists.train.unknown[0]) == set(CLASSES) - {"horse"}
    assert lists.test.unknown == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [(["2008_000008  1"], r"dog_train\.txt: lists other images"), (["2008_000008"], r"dog_train\.txt, line 1: "),
     (["2008_000008 2"], "is not the name of an image and -1, 0 or 1")],
)  # fmt: skip
def test_a_list_of_a_class_that_does_not_fit_the_others_is_an_error(voc2012, content, said):
    voc2012.write("ImageSets/Main/dog_train.txt", content)
    with pytest.raises(DataError, match=said):
        voc2012.prepare("voc2012", "largeloss")


@pytest.mark.parametrize(("benchmark", "protocol"), [("voc2007", "partial"), ("voc2012", "largeloss")])
def test_a_missing_download_is_named_with_the_places_where_it_was_looked_for(root, benchmark, protocol):
    year = benchmark.removeprefix("voc")
    with pytest.raises(MissingFileError, match=rf"no ImageSets/Main/\S+\.txt or VOC{year}/.* below {root.path}"):
        root.prepare(benchmark, protocol)
