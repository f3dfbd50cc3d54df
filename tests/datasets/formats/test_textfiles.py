import os
from pathlib import Path

import pytest

from datasets.formats.textfiles import read_folder
from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError


def test_images_with_a_text_file_are_read_at_any_depth_in_the_order_of_their_paths(tree):
    folder = tree(
        {"b.jpg": "", "b.txt": "dog\ncat\ndog\n", "a/z.png": "", "a/z.txt": "Ant", "a/y/x.gif": "", "a/y/x.txt": ""}
    )
    records = read_folder(folder)
    assert records.images == tuple(str(folder / name) for name in ("a/y/x.gif", "a/z.png", "b.jpg"))
    assert records.labels == ((), ("Ant",), ("dog", "cat"))
    assert (records.classes, records.source) == (("Ant", "cat", "dog"), str(folder))


def test_images_are_absolute_paths_whatever_the_folder_is_relative_to(tree, monkeypatch):
    folder = tree({"in/a.jpg": "", "in/a.txt": "dog"})
    monkeypatch.chdir(folder)
    assert read_folder(Path("in")).images == (str(folder / "in/a.jpg"),)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_kind_of_image_counts_with_any_case_of_its_suffix(tree, suffix):
    folder = tree({f"a{suffix}": "", "a.txt": "x", f"b{suffix.upper()}": "", "b.TXT": "y"})
    assert read_folder(folder).labels == (("x",), ("y",))


def test_names_that_are_not_ascii_are_kept_to_the_letter(tree):
    folder = tree({"für/犬 1.jpg": "", "für/犬 1.txt": "Hündin"})
    records = read_folder(folder)
    assert (records.images, records.classes) == ((str(folder / "für/犬 1.jpg"),), ("Hündin",))


def test_two_images_may_share_a_text_file(tree):
    assert read_folder(tree({"a.jpg": "", "a.png": "", "a.txt": "x"})).labels == (("x",), ("x",))


def test_the_separator_that_is_found_holds_for_every_file_and_is_noted(tree):
    records = read_folder(tree({"a.jpg": "", "a.txt": "big, red", "b.jpg": "", "b.txt": b"\xef\xbb\xbfx; y\r\nz\r\n"}))
    assert records.labels == (("big, red",), ("x", "y", "z"))
    (note,) = records.notes
    assert note.startswith("labels are taken to be separated by ';'; where it is part of a label, set DATASETS.SEP")


@pytest.mark.parametrize(("separator", "labels"), [("/", ("a, b", "c")), ("", ("a, b/c",))])
def test_a_separator_that_is_set_is_the_only_one(tree, separator, labels):
    assert read_folder(tree({"a.jpg": "", "a.txt": "a, b/c"}), separator=separator).labels == (labels,)


def test_classes_txt_fixes_the_classes_and_their_order(tree):
    files = {"classes.txt": "dog\r\ncat, big\n\nant\n", "a.jpg": "", "a.txt": "ant", "b.jpg": "", "b.txt": "dog"}
    records = read_folder(tree(files))
    assert (records.classes, records.notes) == (("dog", "cat, big", "ant"), ())


def test_a_classes_txt_further_down_is_a_text_file_without_an_image(tree):
    records = read_folder(tree({"a/classes.txt": "dog", "a.jpg": "", "a.txt": "ant"}))
    assert records.classes == ("ant",)
    assert records.notes == ("text files without an image, not read: 1 ('a/classes.txt')",)


def test_a_classes_txt_beside_an_image_of_its_name_holds_the_labels_of_the_image(tree):
    assert read_folder(tree({"classes.txt": "dog", "classes.jpg": "", "a.jpg": "", "a.txt": "ant"})).classes == (
        "ant",
        "dog",
    )


def test_no_image_need_have_a_label_where_there_is_a_classes_txt(tree):
    assert read_folder(tree({"classes.txt": "dog", "a.jpg": "", "a.txt": ""})).classes == ("dog",)


def test_what_has_no_partner_is_counted_by_kind_with_the_first_names(tree):
    files = {"a.jpg": "", "a.txt": "x", "b.jpg": "", "b.txt": " \n", "README.txt": "All mine.", "sub/a.txt": "y"}
    records = read_folder(tree({**files, **{f"{i}.png": "" for i in range(1200)}}))
    assert len(records.images) == 2
    assert records.notes == (
        "images without a text file, left out: 1,200 ('0.png', '1.png', '10.png' and 1,197 more)",
        "text files without an image, not read: 2 ('README.txt', 'sub/a.txt')",
        "images with an empty text file, which have no labels: 1 ('b.jpg')",
    )


def test_of_two_text_files_for_an_image_the_one_that_is_not_read_is_counted(tree):
    records = read_folder(tree({"a.jpg": "", "a.TXT": "x", "a.txt": "y"}))
    assert (records.labels, records.notes) == ((("y",),), ("text files without an image, not read: 1 ('a.TXT')",))


def test_hidden_files_and_folders_are_not_read(tree):
    hidden = {".ipynb_checkpoints/a.jpg": "", ".ipynb_checkpoints/a.txt": "y", "._a.jpg": "", "._a.txt": b"\0\xff"}
    records = read_folder(tree({"a.jpg": "", "a.txt": "x", **hidden}))
    assert (records.classes, records.notes) == (("x",), ())


def test_links_to_folders_are_not_followed(tree):
    folder = tree({"a.jpg": "", "a.txt": "x"})
    (folder / "again").symlink_to(folder)
    assert len(read_folder(folder).images) == 1


def test_a_folder_that_cannot_be_listed_is_an_error(tree, monkeypatch):
    folder = tree({"a.jpg": "", "a.txt": "x", "locked/b.jpg": ""})
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(PermissionError, match="locked"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, ["no image has a text file", "a.jpg and a.txt", "VOC", ".json", ".csv"]),
        ({"a.jpg": "", "b.txt": "x"}, ["no image has a text file"]),
        ({"a.jpg": "", "a.txt": "", "b.jpg": "", "b.txt": "\n"}, ["every text file is empty"]),
        ({"a.jpg": "", "a.txt": "dog\nkat\n", "classes.txt": "cat\ndog"}, ["a.txt, line 2", "'kat'", "classes.txt"]),
        ({"a.jpg": "", "a.txt": "dog", "classes.txt": "cat\n\ncat"}, ["classes.txt, line 3", "'cat'", "twice"]),
        ({"a.jpg": "", "a.txt": "dog", "classes.txt": "\n"}, ["classes.txt", "empty"]),
        ({"a.jpg": "", "a.txt": "0 0.5 0.5 0.25 0.1\n"}, ["a.txt, line 1", "box of YOLO", "by name"]),
        ({"a.jpg": "", "a.txt": "\n12 .5 1 0.25 1e-3 0.9"}, ["a.txt, line 2", "box of YOLO"]),
        ({"a.jpg": "", "a.txt": "dog\nmüde".encode("latin-1")}, ["a.txt, line 2", "UTF-8"]),
        ({"a.jpg": "", "a.txt": "x", "classes.txt": "ü".encode("latin-1")}, ["classes.txt, line 1", "UTF-8"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_place(tree, files, named):
    folder = tree(files)
    with pytest.raises(DataError) as caught:
        read_folder(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(folder), *named]), message


@pytest.mark.parametrize("label", ["2 dogs", "0 0.5 0.5 0.25", "1 2 3 4 five", "7"])
def test_labels_with_numbers_are_no_boxes(tree, label):
    assert read_folder(tree({"a.jpg": "", "a.txt": label})).classes == (label,)
