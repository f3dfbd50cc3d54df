"""What the protocols make of a data set, whichever it is."""

import json

import numpy as np
import pytest

from datasets.benchmarks.missing import protocols
from datasets.benchmarks.missing.sources import Sources
from datasets.formats.release import dump, records_of
from datasets.records import DataError, Records
from datasets.thinning import single_positives

CLASSES = ("b", "a", "d", "c")


def records(rows, prefix, seed=0):
    hot = np.random.default_rng(seed).random((rows, 4)) < 0.4
    labels = tuple(tuple(np.array(CLASSES)[row].tolist()) for row in hot)
    return Records(tuple(f"{prefix}{i}.jpg" for i in range(rows)), labels, CLASSES, f"{prefix}.txt")


@pytest.fixture
def prepare(root, monkeypatch):
    def prepare(protocol, sources, **options):
        monkeypatch.setattr(protocols, "READERS", {("mine", protocol): lambda *_: sources})
        return root.prepare("mine", protocol, **options)

    return prepare


SOURCES = Sources(records(103, "train"), records(20, "test", 1), ("a note",))


def test_a_fifth_of_the_images_with_all_labels_validates(prepare):
    lists = prepare("largeloss", SOURCES)
    order = np.random.RandomState(1200).permutation(103)
    chosen = {"train": sorted(order[:82]), "val": sorted(order[82:])}  # 0.2 * 103 = 20.6, rounded
    assert lists.train.images == tuple(SOURCES.train.images[i] for i in chosen["train"])
    assert lists.val == SOURCES.train.rows(chosen["val"])
    assert lists.test is SOURCES.test


def test_the_label_of_an_image_is_drawn_among_all_images_before_they_are_parted(prepare):
    lists = prepare("largeloss", SOURCES)
    rows = [sorted(map(CLASSES.index, row)) for row in SOURCES.train.labels]
    drawn = dict(zip(SOURCES.train.images, single_positives(rows, 4, 1200), strict=True))
    for image, row, unknown in zip(lists.train.images, lists.train.labels, lists.train.unknown, strict=True):
        assert row == (() if drawn[image] is None else (CLASSES[drawn[image]],))
        assert {*row, *unknown} == set(CLASSES)


def test_with_another_seed_the_lists_are_others_and_not_the_protocols(prepare):
    published, other = prepare("largeloss", SOURCES), prepare("largeloss", SOURCES, seed=3)
    assert published.train != other.train
    assert (published.origin["exact"], other.origin["exact"]) == (True, False)
    assert (published.origin["seed"], other.origin["seed"]) == (1200, 3)


def test_partial_labels_stay_in_the_list_for_training_to_be_told_a_share(prepare):
    lists = prepare("partial", SOURCES)
    assert lists.train is SOURCES.train
    assert lists.notes == ("a note",)
    assert lists.origin["exact"]


def test_what_the_list_of_splc_does_not_name_is_unknown_and_written_so(prepare):
    single = SOURCES.train._replace(labels=tuple(row[:1] for row in SOURCES.train.labels))
    train = prepare("splc", SOURCES._replace(train=single)).train
    again = records_of(json.loads(dump(train)), "a.json")
    assert (again.labels, again.unknown) == (single.labels, train.unknown)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"test": SOURCES.train}, "103 images are in the training list and in a test list"),
     ({"test": SOURCES.test.rows(())}, "the test list of train.txt would be empty")],
)  # fmt: skip
def test_lists_that_make_no_sense_are_an_error(prepare, change, said):
    with pytest.raises(DataError, match=said):
        prepare("partial", SOURCES._replace(**change))
