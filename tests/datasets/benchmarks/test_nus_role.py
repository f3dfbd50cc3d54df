import numpy as np
import pytest

from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.nus_role import find_list, joined, need_list
from datasets.records import DataError, MissingFileError, Records

FIRST = Records(("a/0001_11.jpg", "a/0002_12.jpg"), (("x",), ("y",)), ("x", "y"), "first")
SECOND = Records(("b/0001_13.jpg", "b/0002_12.jpg"), ((), ("x", "y")), ("x", "y"), "second")


def save(path, names):
    np.save(path, names)
    return path


def join(tmp_path, names):
    path = save(tmp_path / "formatted_val_images.npy", np.array(names))
    lists, notes = joined({"test": path}, FIRST, SECOND)
    return lists["test"], notes


@pytest.mark.parametrize("folder", ["", "role/"])
@pytest.mark.parametrize(("key", "name"), [("train", "formatted_train_images"), ("test", "formatted_val_images")])
def test_a_list_is_found_in_the_root_and_in_role(tmp_path, folder, key, name):
    (tmp_path / "role").mkdir()
    path = save(tmp_path / f"{folder}{name}.npy", np.array(["a"]))
    assert find_list(Downloads(tmp_path), key) == need_list(Downloads(tmp_path), key) == path


def test_a_missing_list_is_none_or_an_error_that_names_it(tmp_path):
    assert find_list(Downloads(tmp_path), "train") is None
    with pytest.raises(MissingFileError, match=r"no formatted_train_images\.npy or role/formatted_train_images\.npy"):
        need_list(Downloads(tmp_path), "train")


def test_names_by_any_scheme_give_official_images_and_labels_in_the_order_of_the_list(tmp_path):
    records, _ = join(tmp_path, ["7_13_0f1e2d3c4b_m.jpg", "b/0002_12.jpg", "0001_11.jpg"])
    assert records.images == ("b/0001_13.jpg", "b/0002_12.jpg", "a/0001_11.jpg")
    assert records.labels == ((), ("x", "y"), ("x",))
    assert records.classes == ("x", "y")


def test_names_of_no_official_image_are_counted(tmp_path):
    records, notes = join(tmp_path, ["7_99_0f1e2d3c4b_m.jpg", "0001_11.jpg", "5_98_0f1e2d3c4b_m.jpg"])
    assert records.images == ("a/0001_11.jpg",)
    assert "2 of 3 names in formatted_val_images.npy belong to no official image" in notes


def test_photo_ids_of_several_images_are_counted(tmp_path):
    _, notes = join(tmp_path, ["0001_11.jpg"])
    assert notes[0].startswith("1 photo ids have several official images")


def test_without_such_photo_ids_there_is_no_note_of_them(tmp_path):
    path = save(tmp_path / "a.npy", np.array(["0001_11.jpg"]))
    assert joined({"test": path}, FIRST)[1] == ("0 of 1 names in a.npy belong to no official image",)


def test_two_names_of_one_image_are_counted_once(tmp_path):
    records, _ = join(tmp_path, ["0001_11.jpg", "7_11_0f1e2d3c4b_m.jpg"])
    assert records.images == ("a/0001_11.jpg",)
    assert records.notes == ("1 repeated mentions of images with the same labels are counted once",)


def test_names_may_be_bytes(tmp_path):
    records, _ = join(tmp_path, [b"0001_11.jpg"])
    assert records.images == ("a/0001_11.jpg",)


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.array(["a", None], dtype=object), "can run code"),
        (np.zeros(3), "found float64 of shape (3,)"),
        (np.array([["a"]]), "found <U1 of shape (1, 1)"),
    ],
)
def test_an_array_of_something_else_is_an_error_with_its_name(tmp_path, array, named):
    path = save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        joined({"test": path}, FIRST)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not an array at all"])
def test_a_file_that_is_no_array_is_an_error(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="expected an array of text"):
        joined({"test": tmp_path / "a.npy"}, FIRST)


def test_an_archive_of_arrays_is_an_error(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, a=np.array(["a"]))
    with pytest.raises(DataError, match="found an archive"):
        joined({"test": tmp_path / "a.npy"}, FIRST)
