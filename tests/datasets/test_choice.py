"""The choice itself; what follows from it for images is tested with `compose`."""

import hashlib

import pytest

from datasets.choice import CHOICES, LabelChoice, choose, named_vocabulary
from datasets.records import DataError, Records

ROWS = [("a", "b"), ("a",), ("c", "a"), ("b",)]


def records(rows=ROWS, classes="abcd", source="my.csv"):
    return Records(tuple(map(str, range(len(rows)))), tuple(rows), tuple(classes), source)


def choice(how="files", fraction=0.5, seen=(), unseen=(), seed=0):
    return LabelChoice(seen, unseen, how, fraction, seed)


def test_frequent_labels_are_seen_and_the_parts_are_sorted():
    assert choose(records(classes="dcba"), records(), None, choice("frequent")) == (("a", "b"), ("c", "d"))


def test_random_labels_are_the_first_by_digest():
    digests = {name: hashlib.sha256(f"5:{name}".encode()).digest() for name in "abcd"}
    expected = sorted(sorted("abcd", key=digests.get)[:3])
    assert choose(records(), records(), None, choice("random", 0.25, seed=5)).seen == tuple(expected)


def test_a_label_that_only_the_test_list_has_can_be_chosen():
    assert choose(records(), records(classes="abcdz"), None, choice("frequent", 0.2)).unseen == ("z",)


def test_files_are_the_rule_of_the_benchmarks():
    assert choose(records(classes="ab"), records(), None, choice()) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize("how", [how for how in CHOICES if how != "files"])
def test_a_list_of_unseen_labels_leaves_nothing_to_choose(how):
    with pytest.raises(DataError, match=r"set DATASETS\.CHOOSE files"):
        choose(records(), records(), records(classes="d"), choice(how))


def test_named_labels_go_before_the_rule():
    assert choose(records(), records(), None, choice("random", unseen=("b",))) == (("a", "c", "d"), ("b",))


@pytest.mark.parametrize("key", ["seen", "unseen"])
def test_naming_every_label_leaves_none_for_the_other_part(key):
    with pytest.raises(DataError, match=rf"DATASETS\.{key.upper()}: every label is named"):
        named_vocabulary(choice(**{key: tuple("abcd")}), [records()])
