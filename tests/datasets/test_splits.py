import numpy as np
import pytest
import torch

from datasets.records import DataError, Records
from datasets.splits import images_without, known, most_frequent, restrict, targets, vocabulary


def records(classes, labels=(), source="file"):
    return Records(tuple(f"{i}.jpg" for i in range(len(labels))), tuple(labels), tuple(classes), source)


def test_unseen_labels_are_those_of_test_that_train_has_not():
    words = vocabulary(records("ca"), records("dcbae"), None)
    assert (words.seen, words.unseen) == (("a", "c"), ("b", "d", "e"))


def test_all_labels_are_the_sorted_seen_ones_and_then_the_sorted_unseen_ones_capitals_first():
    words = vocabulary(records(["b", "Z", "a"]), records(["A", "c", "b", "a", "Z"]), None)
    assert words.all == ("Z", "a", "b", "A", "c")


def test_classes_of_test_that_are_neither_seen_nor_unseen_are_left_out():
    assert vocabulary(records("a"), records("abx"), records("b")).all == ("a", "b")


def test_without_training_records_seen_labels_are_the_classes_of_test_that_zsl_has_not():
    assert vocabulary(None, records("dcba"), records("bd")) == (("a", "c"), ("b", "d"))


@pytest.mark.parametrize(
    ("train", "test", "zsl", "said"),
    [
        ("ab", "ab", None, "no unseen labels"),
        (None, "ab", "ab", "no seen labels"),
        ("ab", "abc", "bc", "'b' in train.json and in zsl.json"),
        ("ax", "abc", None, "'x' not among the classes of test.json"),
        ("a", "ab", "y", "'y' not among the classes of test.json"),
        ("abcde", "f", None, "'a', 'b', 'c' and 2 more"),
        (None, "ab", None, "DATASETS.TEST_ZSL"),
    ],
)
def test_labels_that_cannot_be_split_are_an_error(train, test, zsl, said):
    def named(classes, name):
        return None if classes is None else records(classes, source=name)

    with pytest.raises(DataError, match=said):
        vocabulary(named(train, "train.json"), named(test, "test.json"), named(zsl, "zsl.json"))


def test_restrict_keeps_only_the_named_labels():
    kept = restrict(records("abc", [("c", "a"), ("b",), ()]), ["c", "b"], drop_empty=False)
    assert kept == Records(("0.jpg", "1.jpg", "2.jpg"), (("c",), ("b",), ()), ("c", "b"), "file")


def test_restrict_drops_images_without_a_named_label_if_asked():
    kept = restrict(records("abc", [("c", "a"), ("b",), (), ("a",)]), ["a"], drop_empty=True)
    assert (kept.images, kept.labels) == (("0.jpg", "3.jpg"), (("a",), ("a",)))


def test_targets_equal_a_brute_force_computation():
    rng = np.random.default_rng(0)
    names = [f"n{i}" for i in rng.permutation(12)]
    rows = [tuple(rng.choice(names, rng.integers(0, 6), replace=False)) for _ in range(40)]
    asked = names[:8]
    expected = [[int(name in row) for name in asked] for row in rows]
    assert targets(records(names, rows), asked).tolist() == expected


def test_targets_are_bytes():
    assert targets(records("ab", [("a",)]), "ab").dtype == torch.uint8


@pytest.mark.parametrize("rows", [(), ((), ())])
def test_targets_without_any_label_are_zeros(rows):
    assert torch.equal(targets(records("ab", rows), "ab"), torch.zeros(len(rows), 2, dtype=torch.uint8))


def test_images_with_a_named_label_are_left_out_and_the_rest_keep_all_labels():
    rest = images_without(records("abc", [("a", "c"), ("b",), (), ("a", "b")]), ["c", "x"])
    assert (rest.images, rest.labels) == (("1.jpg", "2.jpg", "3.jpg"), (("b",), (), ("a", "b")))


def test_the_most_frequent_labels_come_first_and_equal_ones_in_the_order_of_the_classes():
    found = records("abcd", [("c", "b"), ("b",), ("a",), ("c",)])
    assert most_frequent(found, 3) == ("b", "c", "a")
    assert most_frequent(found, 4)[-1] == "d"


def test_known_is_false_where_a_list_says_nothing():
    records = Records(("a", "b"), (("x",), ()), ("x", "y", "z"), "f", unknown=(("y",), ("x", "z")))
    assert known(records, ("y", "x")).tolist() == [[False, True], [True, False]]
    assert known(records._replace(unknown=()), ("x",)) is None
    assert known(records._replace(unknown=(("z",), ())), ("x", "y")) is None


def test_restricting_keeps_what_is_not_known_of_the_labels_that_stay():
    records = Records(("a", "b"), (("x",), ("y",)), ("x", "y", "z"), "f", unknown=(("y", "z"), ("x",)))
    assert restrict(records, ["x", "z"], drop_empty=False).unknown == (("z",), ("x",))
    assert restrict(records, ["x", "z"], drop_empty=True).unknown == (("z",),)
