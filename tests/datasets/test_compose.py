import hashlib
import json
import os
import random

import pytest

from datasets import compose as compose_module
from datasets.choice import LabelChoice
from datasets.compose import compose, cut, fingerprint
from datasets.records import DataError, Records

FILES = LabelChoice((), (), "files", 0.3, 0)


def records(labels, classes=None, source="my.csv", prefix="", notes=()):
    found = sorted({label for row in labels for label in row})
    images = tuple(f"{prefix}{i}.jpg" for i in range(len(labels)))
    return Records(images, tuple(map(tuple, labels)), tuple(classes or found), source, tuple(notes))


def composed(train, val=None, test=None, test_zsl=None, choice=FILES, **more):
    settings = {"val_fraction": 0.0, "test_fraction": 0.0, "seed": 0, "texts": {}, **more}
    return compose(train, val, test, test_zsl, choice=choice, **settings)


@pytest.fixture
def many():
    """100 images; a has 60 of them, b 40, c 20, d 10, e 5."""
    rng = random.Random(0)
    rows = [[] for _ in range(100)]
    for label, count in {"e": 5, "d": 10, "c": 20, "b": 40, "a": 60}.items():
        for i in rng.sample(range(100), count):
            rows[i].append(label)
    return records(rows)


def test_the_parts_of_a_cut_are_the_whole_and_do_not_overlap(many):
    rest, parts = cut(many, {"VAL": 0.1, "TEST": 0.25}, 3)
    assert [len(p.images) for p in (rest, parts["VAL"], parts["TEST"])] == [65, 10, 25]
    pairs = [pair for p in (rest, *parts.values()) for pair in zip(p.images, p.labels, strict=True)]
    assert sorted(pairs) == sorted(zip(many.images, many.labels, strict=True))


def test_a_cut_keeps_the_order_of_the_list(many):
    rest, parts = cut(many, {"VAL": 0.3}, 3)
    for part in (rest, parts["VAL"]):
        assert list(part.images) == sorted(part.images, key=many.images.index)


def test_a_cut_is_a_function_of_the_seed(many):
    assert cut(many, {"VAL": 0.2}, 5) == cut(many, {"VAL": 0.2}, 5)
    assert cut(many, {"VAL": 0.2}, 5) != cut(many, {"VAL": 0.2}, 6)


def test_a_cut_stays_the_same_when_the_folder_moves(many):
    def moved(folder):
        _, parts = cut(many._replace(images=tuple(f"{folder}/{image}" for image in many.images)), {"VAL": 0.2}, 5)
        return [image.rsplit("/", 1)[1] for image in parts["VAL"].images]

    assert moved("/a/b") == moved("/elsewhere")


def test_a_fingerprint_changes_with_images_and_labels_and_not_with_the_folder(many):
    moved = [many._replace(images=tuple(f"/{f}/{image}" for image in many.images)) for f in ("a/b", "c")]
    assert fingerprint(moved[0]) == fingerprint(moved[1])
    fewer = many._replace(images=many.images[1:], labels=many.labels[1:])
    other = many._replace(labels=(("e",), *many.labels[1:]))
    assert len({fingerprint(records) for records in (many, fewer, other)}) == 3


def test_without_shares_nothing_is_cut(many):
    rest, parts = cut(many, {"VAL": 0.0, "TEST": 0.0}, 0)
    assert rest is many
    assert parts == {"VAL": None, "TEST": None}


@pytest.mark.parametrize(
    ("shares", "said"),
    [({"VAL": -0.1, "TEST": 0.2}, "DATASETS.VAL_FRACTION -0.1 and DATASETS.TEST_FRACTION 0.2: both"),
     ({"VAL": 0.5, "TEST": 0.5}, "DATASETS.VAL_FRACTION 0.5 and"),
     ({"VAL": 0.001, "TEST": 0.0}, "DATASETS.VAL_FRACTION 0.001 of 100 images is none"),
     ({"VAL": 0.5, "TEST": 0.4999}, "my.csv: 100 images leave none")],
)  # fmt: skip
def test_a_cut_that_leaves_a_part_empty_names_the_key(many, shares, said):
    with pytest.raises(DataError) as caught:
        cut(many, shares, 0)
    assert said in str(caught.value)


def test_lists_of_a_benchmark_stay_as_they_are():
    train, test = records([["a"], [], ["b"]]), records([["a", "x"], []], ["a", "b", "x"], "test.json", "t")
    splits = composed(train, None, test)
    assert (splits.train, splits.test, splits.val) == (train, test, None)
    assert splits.vocabulary == (("a", "b"), ("x",))
    assert splits.notes == ()


def test_the_most_frequent_labels_are_seen(many):
    splits = composed(many, test_fraction=0.1, choice=FILES._replace(how="frequent", fraction=0.4))
    assert splits.vocabulary == (("a", "b", "c"), ("d", "e"))


def test_frequencies_are_those_of_the_training_part():
    train, test = records([["b"], ["b"], ["a"]]), records([["a"]] * 9, ["a", "b"], "test.csv")
    choice = FILES._replace(how="frequent", fraction=0.5)
    assert composed(train, None, test, choice=choice).vocabulary == (("b",), ("a",))


def test_random_labels_are_a_function_of_the_seed(many):
    def drawn(seed):
        choice = FILES._replace(how="random", fraction=0.4, seed=seed)
        return composed(many, test_fraction=0.1, choice=choice).vocabulary

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(8)}) > 3
    assert all(len(drawn(seed).unseen) == 2 for seed in range(8))


def test_all_labels_may_be_seen(many):
    splits = composed(many, test_fraction=0.2, choice=FILES._replace(how="none"))
    assert splits.vocabulary == (("a", "b", "c", "d", "e"), ())
    assert len(splits.train.images) == 80


def test_labels_that_only_the_test_list_has_can_be_unseen(many):
    test = records([["z"], ["a"]], source="test.csv")
    splits = composed(many, None, test, choice=LabelChoice((), ("z",), "files", 0.3, 0))
    assert splits.vocabulary.unseen == ("z",)


@pytest.mark.parametrize(
    ("seen", "unseen", "expected"),
    [(("b", "a"), ("d",), (("a", "b"), ("d",))), (("b", "a"), (), (("a", "b"), ("c", "d", "e"))),
     ((), ("e", "d"), (("a", "b", "c"), ("d", "e")))],
)  # fmt: skip
def test_named_labels_decide_and_the_rest_is_the_other_part(many, seen, unseen, expected):
    choice = LabelChoice(seen, unseen, "frequent", 0.3, 0)
    assert composed(many, test_fraction=0.1, choice=choice).vocabulary == expected


def test_training_images_have_seen_labels_only_and_no_image_has_an_unseen_one(many):
    splits = composed(many, test_fraction=0.1, choice=LabelChoice(("a",), ("d", "e"), "files", 0.3, 0))
    original = dict(zip(many.images, many.labels, strict=True))
    assert splits.train.classes == ("a",)
    assert set().union(*splits.train.labels) == {"a"}
    kept = {image for image in many.images if not {"d", "e"} & set(original[image])} - set(splits.test.images)
    assert set(splits.train.images) == kept


def test_what_is_left_out_is_counted(many):
    splits = composed(many, test_fraction=0.1, choice=LabelChoice(("a",), ("d", "e"), "files", 0.3, 0))
    rest = [row for i, row in zip(many.images, many.labels, strict=True) if i not in splits.test.images]
    dropped = sum(bool({"d", "e"} & set(row)) for row in rest)
    ignored = sum(label in "bc" for row in rest for label in row)
    assert splits.notes == (
        f"{dropped} of 90 training images have an unseen label and are left out; "
        "DATASETS.CHOOSE, SEEN and UNSEEN say which labels are unseen",
        f"my.csv: 'b', 'c' neither seen nor unseen: {ignored} mentions are left out",
    )


def test_notes_of_reading_come_first_and_once():
    train = records([["a"]] * 10 + [["b"]] * 10, notes=["3 images are listed twice"])
    splits = composed(train, test_fraction=0.5, choice=FILES._replace(how="none"))
    assert splits.notes == ("my.csv: 3 images are listed twice",)


def test_a_validation_file_is_not_cut_from_the_training_images(many):
    val = records([["a"]], source="val.csv", prefix="v")
    splits = composed(many, val, test_fraction=0.1, val_fraction=0.5, choice=FILES._replace(how="none"))
    assert splits.val is val
    assert len(splits.train.images) == 90


def test_validation_images_may_be_cut_from_a_benchmarks_training_list():
    train, test = records([["a"]] * 10), records([["a", "x"]], source="test.json", prefix="t")
    splits = composed(train, None, test, val_fraction=0.2)
    assert [len(part.images) for part in (splits.train, splits.val, splits.test)] == [8, 2, 1]
    assert splits.vocabulary == (("a",), ("x",))


def test_without_a_training_list_the_classes_decide_or_the_names():
    test, zsl = records([["a", "x"]], source="t"), records([["x"]], source="z")
    assert composed(None, None, test, zsl).vocabulary == (("a",), ("x",))
    assert composed(None, None, test, choice=LabelChoice(("a",), (), "files", 0.3, 0)).vocabulary == (("a",), ("x",))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (LabelChoice(("dgo",), (), "files", 0.3, 0), "DATASETS.SEEN: my.csv has no label 'dgo'; did you mean 'dog'?"),
        (LabelChoice((), ("qqqq",), "files", 0.3, 0), "no label 'qqqq'; it has 'a', 'b', 'c' and 1 more"),
        (LabelChoice(("a", "b"), ("b",), "files", 0.3, 0), "'b' in DATASETS.SEEN and in DATASETS.UNSEEN"),
        (LabelChoice((), ("a", "b", "c", "dog"), "files", 0.3, 0), "DATASETS.UNSEEN: every label is named"),
        (FILES._replace(how="rarest"), "DATASETS.CHOOSE is 'rarest'; it has to be one of files, frequent, random"),
        (FILES._replace(how="frequent", fraction=1.0), "DATASETS.UNSEEN_FRACTION 1.0 makes 4 of 4 labels unseen"),
        (FILES._replace(how="random", fraction=0.0), "makes 0 of 4 labels unseen"),
        (FILES._replace(how="random", fraction=-0.5), "makes -2 of 4 labels unseen"),
        (FILES, "no unseen labels: every class of my.csv"),
        (LabelChoice((), ("a",), "files", 0.3, 0), "every training image has an unseen label"),
    ],
)
def test_a_choice_that_cannot_be_made_is_one_line_with_the_way_out(choice, said):
    train = records([["a", label] for label in ("a", "b", "c", "dog")] * 5)
    with pytest.raises(DataError) as caught:
        composed(train, test_fraction=0.2, choice=choice)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_and_a_list_of_unseen_labels_contradict_each_other():
    train, test, zsl = (records([["a", "x"]], source=name) for name in ("a", "b", "c"))
    with pytest.raises(DataError, match=r"DATASETS\.TEST_ZSL names the unseen labels already"):
        composed(train, None, test, zsl, choice=LabelChoice((), ("x",), "files", 0.3, 0))


def test_a_choice_and_a_list_of_unseen_labels_contradict_each_other():
    train, test, zsl = (records([["a", "x"]], source=name) for name in ("a", "b", "c"))
    with pytest.raises(DataError, match=r"DATASETS\.TEST_ZSL names .*: set DATASETS\.CHOOSE files"):
        composed(train, None, test, zsl, choice=FILES._replace(how="frequent"))


def test_images_of_training_and_test_are_counted():
    train, test = records([["a"], ["b"], ["a"]]), records([["a", "x"], ["x"]], ["a", "b", "x"], "test.json")
    test = test._replace(images=("./0.jpg", "9.jpg"))
    splits = composed(train, records([["a"], ["b"]], source="v"), test)
    assert splits.notes == (
        "WARNING: 2 validation images are training images too", "WARNING: 1 test images are training images too",
    )  # fmt: skip


@pytest.mark.parametrize(("images", "held_out"), [(194, 0), (195, 20), (400, 40)])
def test_validation_images_are_cut_off_by_themselves_where_there_are_enough(images, held_out):
    splits = composed(records([["a"]] * images), test_fraction=0.1, val_fraction=None,
                      choice=FILES._replace(how="none"))  # fmt: skip
    assert (len(splits.val.images) if splits.val else 0) == held_out
    assert (
        f"{images} images are too few to hold some out for validation, and so for probabilities" in splits.notes
    ) == (not held_out)


def test_a_validation_list_is_taken_instead_of_a_cut():
    val = records([["a"]], source="val.csv", prefix="v")
    splits = composed(records([["a"]] * 50), val, test_fraction=0.1, val_fraction=None,
                      choice=FILES._replace(how="none"))  # fmt: skip
    assert (splits.val, splits.notes) == (val, ())


def test_a_test_part_without_unseen_labels_is_told():
    train = records([["a"]] * 30 + [["b"]])
    seed = next(s for s in range(99) if "30.jpg" in composed(
        train, test_fraction=0.1, choice=FILES._replace(how="none"), seed=s).train.images)  # fmt: skip
    splits = composed(train, test_fraction=0.1, choice=LabelChoice((), ("b",), "files", 0.3, 0), seed=seed)
    assert splits.notes[-1].startswith("no test image has an unseen label, so there is no ZSL")


def test_training_images_without_any_seen_label_are_an_error():
    train, test = records([[], []], ["a"], "t.json"), records([["a", "x"]], source="test.json", prefix="t")
    with pytest.raises(DataError, match=r"t\.json: no training image has a seen label"):
        composed(train, None, test)


def test_neither_a_test_list_nor_a_fraction_names_both_keys(many):
    with pytest.raises(DataError, match=r"DATASETS\.TEST is empty: .* DATASETS\.TEST_FRACTION"):
        composed(many)


def test_splits_print_their_sizes_and_notes(many):
    splits = composed(many, test_fraction=0.1, choice=LabelChoice((), ("e",), "files", 0.3, 0))
    first, *rest = str(splits).splitlines()
    assert first == f"data: {len(splits.train.images)} training, 10 test images; 4 seen and 1 unseen labels"
    assert tuple(rest) == splits.notes


def test_a_fingerprint_tells_what_is_not_known():
    records = Records(("a",), (("x",),), ("x", "y"), "f")
    assert fingerprint(records) != fingerprint(records._replace(unknown=(("y",),)))
    assert fingerprint(records) != fingerprint(records, ("x",))


def test_a_fingerprint_is_that_of_the_whole_text_however_much_of_it_is_read_at_once(many, monkeypatch):
    parts = [list(many.images), many.labels, ["x"]]
    expected = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    for at_once in (1, 7, 100, 4096):
        monkeypatch.setattr(compose_module, "AT_ONCE", at_once)
        assert fingerprint(many, ["x"]) == expected


def test_a_fingerprint_is_that_of_the_names_below_the_folder_that_all_have_in_common():
    images = ("/data/a/1.jpg", "/data/b//2.jpg", "/data/a/../3.jpg")
    content = json.dumps([[os.path.relpath(image, "/data") for image in images], [["x"]] * 3, []])
    expected = hashlib.sha256(content.encode()).hexdigest()
    assert fingerprint(Records(images, (("x",),) * 3, ("x",), "file")) == expected
