"""NUS-WIDE's concepts on the images of ROLE and of SPLC."""

import numpy as np
import pytest

from datasets.records import DataError

CONCEPTS = [f"concept {k:02d}" for k in range(81)]


def save(root, key, names, rows):
    table = np.zeros((len(rows), 81))
    for row, columns in zip(table, rows, strict=True):
        row[columns] = 1
    np.save(root.path / f"formatted_{key}_images.npy", np.array(names))
    np.save(root.path / f"formatted_{key}_labels.npy", table)


@pytest.fixture
def nus(root):
    root.write("ConceptsList/Concepts81.txt", CONCEPTS)
    save(root, "train", ["images/1_a.jpg", "images/2_b.jpg", "images\\3_c.jpg"], [[4], [], [80, 0]])
    save(root, "val", ["images/4_d.jpg"], [[1, 2]])
    return root


def test_the_arrays_of_role_are_images_and_concepts(nus, pairs):
    lists = nus.prepare("nus", "largeloss")
    known = pairs(lists.train) | pairs(lists.val)
    assert known.keys() == {"images/1_a.jpg", "images/2_b.jpg", "images/3_c.jpg"}
    assert known["images/1_a.jpg"] == {"concept 04"}
    assert known["images/2_b.jpg"] == set()
    assert pairs(lists.test) == {"images/4_d.jpg": {"concept 01", "concept 02"}}


def test_the_lists_of_splc_are_images_and_numbers_of_concepts(nus, pairs):
    nus.write("nus_train_singlelabel.txt", ["1_a.jpg,4", "2_b.jpg,80"])
    nus.write("nus_val.txt", ["4_d.jpg,1 2"])
    lists = nus.prepare("nus", "splc")
    assert pairs(lists.train) == {"images/1_a.jpg": {"concept 04"}, "images/2_b.jpg": {"concept 80"}}
    assert pairs(lists.test) == {"images/4_d.jpg": {"concept 01", "concept 02"}}


def test_names_may_be_given_in_another_order(nus):
    nus.write("nus_labels.txt", [f"other {k}" for k in range(81)])
    assert nus.prepare("nus", "largeloss").test.labels == (("other 1", "other 2"),)


@pytest.mark.parametrize(
    ("table", "said"),
    [(np.zeros((2, 81)), "has 2 rows, formatted_train_images.npy 3 names"),
     (np.zeros((3, 80)), "expected 0 and 1 in 81 columns"), (np.full((3, 81), 0.5), "expected 0 and 1 in 81 columns"),
     (np.array([None]), "a pickled one is not read")],
)  # fmt: skip
def test_an_array_of_something_else_is_an_error(nus, table, said):
    np.save(nus.path / "formatted_train_labels.npy", table)
    with pytest.raises(DataError, match=said):
        nus.prepare("nus", "largeloss")
