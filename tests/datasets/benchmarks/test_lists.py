import pytest

from datasets.benchmarks.lists import open_vocabulary
from datasets.records import DataError, Records

SEEN, UNSEEN = ("cat", "dog"), ("bus",)


def records(rows, classes=("bus", "cat", "dog", "tree"), source="file"):
    return Records(tuple(rows), tuple(tuple(row.split()) for row in rows.values()), classes, source)


TRAIN = records(
    {"1": "cat tree", "2": "dog bus", "3": "tree", "4": "", "5": "bus", "6": "dog cat"}, source="train.json"
)
TEST = records({"a": "bus cat", "b": "tree", "c": "tree dog", "d": "", "e": "bus"}, source="test.json")


def lists(train=TRAIN, test=TEST, seen=SEEN, unseen=UNSEEN, **options):
    return open_vocabulary(train, test, seen, unseen, origin={"benchmark": "x"}, **options)


def pairs(records):
    return dict(zip(records.images, records.labels, strict=True))


def test_training_images_have_a_seen_label_and_no_unseen_one():
    assert pairs(lists().train) == {"1": ("cat",), "6": ("dog", "cat")}
    assert lists().train.classes == SEEN


def test_training_images_without_unseen_classes_only_need_a_seen_label():
    train = TRAIN._replace(classes=tuple(name for name in TRAIN.classes if name not in UNSEEN))
    labels = tuple(tuple(name for name in row if name not in UNSEEN) for row in TRAIN.labels)
    assert lists(train=train._replace(labels=labels)).train.images == ("1", "2", "6")


def test_test_images_have_one_of_all_labels():
    assert pairs(lists().test) == {"a": ("bus", "cat"), "c": ("dog",), "e": ("bus",)}
    assert lists().test.classes == SEEN + UNSEEN


def test_images_of_the_zsl_list_have_an_unseen_label():
    assert pairs(lists().test_zsl) == {"a": ("bus",), "e": ("bus",)}
    assert lists().test_zsl.classes == UNSEEN


def test_with_keep_empty_both_test_lists_have_all_images():
    made = lists(keep_empty=True)
    assert made.test.images == made.test_zsl.images == TEST.images


def test_what_is_left_out_is_counted():
    assert lists(notes=["before"]).notes == (
        "before",
        "of 6 training images, 2 have an unseen label and 2 no seen one: left out",
        "of 5 test images, 2 have no label: left out",
    )


def test_kept_images_without_a_label_are_counted():
    assert lists(keep_empty=True).notes[-1] == "of 5 test images, 2 have no label: kept"


def test_training_images_without_unseen_classes_are_not_said_to_be_looked_at_for_them():
    tags = records({"1": "cat", "2": ""}, classes=SEEN)
    made = lists(train=tags)
    assert made.train.images == ("1",)
    assert made.notes[0] == "of 2 training images, 1 have no seen label: left out"


def test_validation_images_are_as_test_images():
    assert pairs(lists(val=TEST).val) == pairs(lists().test)


def test_without_official_validation_images_there_are_none():
    assert lists().val is None


def test_the_origin_is_handed_on():
    assert lists().origin == {"benchmark": "x"}


@pytest.mark.parametrize("name", ["train", "test", "test_zsl"])
def test_an_authors_list_is_taken_as_it_is_and_the_others_are_ours(name):
    theirs = records({"/mnt/z.jpg": "dog"}, classes=("dog", "cat"))
    made, plain = lists(released={name: theirs}), lists()
    assert getattr(made, name) is theirs
    others = {"train", "test", "test_zsl"} - {name}
    assert all(getattr(made, other) == getattr(plain, other) for other in others)


def test_what_the_rule_leaves_out_is_not_told_of_an_authors_list():
    made = lists(released={"train": TRAIN, "test": TEST})
    assert made.notes == ()


def test_a_label_in_both_parts_is_an_error():
    with pytest.raises(DataError, match="'dog' seen and unseen at once"):
        lists(unseen=("bus", "dog"))


@pytest.mark.parametrize("name", ["test", "test_zsl"])
def test_an_image_of_training_and_test_is_an_error(name):
    theirs = records({"6": "bus"}, classes=("bus", "tram"))
    with pytest.raises(DataError, match="1 images are in the training list and in a test list: '6'"):
        lists(released={name: theirs})


def test_a_seen_label_that_the_training_images_do_not_know_is_an_error():
    with pytest.raises(DataError, match=r"train\.json does not know the label 'fox'"):
        lists(seen=("cat", "fox"))


def test_an_unseen_label_that_the_test_images_do_not_know_is_an_error():
    with pytest.raises(DataError, match=r"test\.json does not know the label 'fox'"):
        lists(unseen=("fox",))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("train", {"train": records({"1": "tree"}, source="train.json")}),
        ("test", {"test": records({"a": "tree"})}),
        ("test_zsl", {"test": records({"a": "dog"})}),
        ("train", {"released": {"train": records({})}}),
    ],
)
def test_a_list_that_would_be_empty_is_an_error(name, options):
    with pytest.raises(DataError, match=rf"the {name} list of train\.json would be empty"):
        lists(**options)
