"""One spelling for each label."""

import pytest

from datasets.records import DataError, Records
from datasets.spelling import with_one_case, with_synonyms


def records(labels, classes=None, **more):
    classes = classes or sorted({label for row in labels for label in row})
    return Records(
        tuple(f"{i}.jpg" for i in range(len(labels))), tuple(map(tuple, labels)), tuple(classes), "my.csv", **more
    )


def test_synonyms_become_their_label_once():
    renamed = with_synonyms(records([["couch", "sofa"], ["tv"], []]), {"couch": "sofa", "telly": "tv"})
    assert renamed.labels == (("sofa",), ("tv",), ())
    assert renamed.classes == ("sofa", "tv")
    assert renamed.notes == ("1 mentions of synonyms count as their label",)


def test_records_without_synonyms_are_left_alone():
    plain = records([["a"], ["b"]])
    assert with_synonyms(plain, {"couch": "sofa"}) is plain


def test_synonyms_of_what_is_not_known_are_their_label():
    partly = records([["sofa"], []], ("sofa", "couch", "cat"), unknown=(("couch", "cat"), ("couch",)))
    assert with_synonyms(partly, {"couch": "sofa"}).unknown == (("cat",), ("sofa",))


def test_labels_that_differ_in_case_only_are_an_error_across_lists():
    with pytest.raises(DataError, match=r"case only: 'Dog', 'dog'; write them alike, or set DATASETS\.MERGE_CASE True"):
        with_one_case([records([["Dog"]]), None, records([["dog"]])], merge=False)


def test_lists_without_such_labels_stay_as_they_are():
    lists = [records([["dog"]]), None, records([["cat"]])]
    assert all(a is b for a, b in zip(with_one_case(lists, merge=False).lists, lists, strict=True))


def test_merged_labels_are_spelt_as_in_most_images_of_all_lists():
    train, test = with_one_case([records([["Dog"], ["dog", "Cat"]]), records([["dog", "Dog"]])], merge=True).lists
    assert (train.labels, test.labels) == ((("Dog",), ("Dog", "Cat")), (("Dog",),))
    train, test = with_one_case([records([["Dog"], ["dog"]]), records([["dog"]])], merge=True).lists
    assert (train.labels, train.classes, test.classes) == ((("dog",), ("dog",)), ("dog",), ("dog",))
    assert train.notes == ("1 mentions of labels in another case count as one label (DATASETS.MERGE_CASE)",)
    assert test.notes == ()


def test_the_spelling_that_a_model_was_trained_on_wins():
    (test,) = with_one_case([records([["Dog"], ["Dog"]])], merge=True, preferred=("dog",)).lists
    assert test.classes == ("dog",)
    with pytest.raises(DataError, match="'Dog', 'dog'"):
        with_one_case([records([["Dog"]])], merge=False, preferred=("dog",))


def test_the_other_spellings_are_told_by_their_label():
    merged = with_one_case([records([["Dog"], ["dog"], ["Dog"]])], merge=True)
    assert merged.names == {"dog": "Dog"}
