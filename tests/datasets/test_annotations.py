import json
import os
from pathlib import Path

import pytest

from datasets import shapes
from datasets.annotations import read_records
from datasets.records import DataError, MissingFileError

RELEASE = Path(__file__).parents[2].parent / "shared" / "data" / "release_json"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": c} for c in (9, 7)] + [{"image_id": 2, "category_id": 9}],
}
XML = "<annotation><filename>{}.jpg</filename>{}</annotation>"
DOG, CAT = ("<object><name>dog</name></object>", "<object><name>cat</name></object>")
FORMATS = {
    "my.json": {
        "my.json": json.dumps({"images": [["a.jpg", ["dog", "cat"]], ["b.jpg", ["dog"]]], "classes": ["cat", "dog"]})
    },
    "instances.JSON": {"instances.JSON": json.dumps(COCO)},
    "my.csv": {"my.csv": "image,labels\na.jpg,dog|cat\nb.jpg,dog\n"},
    "my.TSV": {"my.TSV": "image\tcat\tdog\na.jpg\t1\t1\nb.jpg\t0\t1\n"},
    "voc": {"voc/Annotations/a.xml": XML.format("a", DOG + CAT), "voc/Annotations/b.xml": XML.format("b", DOG)},
    "xml": {"xml/a.xml": XML.format("a", DOG + CAT), "xml/b.xml": XML.format("b", DOG)},
    "voc/ImageSets/Main/all.txt": {
        "voc/Annotations/a.xml": XML.format("a", DOG + CAT),
        "voc/Annotations/b.xml": XML.format("b", DOG),
        "voc/Annotations/c.xml": "not listed",
        "voc/ImageSets/Main/all.txt": "a\nb\n",
    },
    "texts": {"texts/a.jpg": "", "texts/a.txt": "dog\ncat", "texts/b.jpg": "", "texts/b.txt": "dog"},
}


@pytest.fixture
def tree(tmp_path):
    """Writes text files below a folder, and gives the folder as text."""

    def tree(files):
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        return str(tmp_path)

    return tree


@pytest.mark.parametrize("source", FORMATS)
def test_the_same_content_is_read_from_every_format(tree, source):
    records = read_records(source, tree(FORMATS[source]))
    assert [os.path.basename(image) for image in records.images] == ["a.jpg", "b.jpg"]
    assert [set(labels) for labels in records.labels] == [{"cat", "dog"}, {"dog"}]
    assert records.classes == ("cat", "dog")


@pytest.mark.parametrize("source", FORMATS)
def test_the_source_is_named_with_its_root(tree, source, tmp_path):
    assert read_records(source, tree(FORMATS[source])).source == str(tmp_path / source)


@pytest.mark.parametrize(
    ("source", "files"),
    [("my.csv", {"my.csv": "image,labels\na.jpg,x|y/z\n"}), ("in", {"in/a.jpg": "", "in/a.txt": "x|y/z"})],
)
def test_the_separator_reaches_tables_and_text_files(tree, source, files):
    assert read_records(source, tree(files), separator="/").labels == (("x|y", "z"),)


def test_an_absolute_path_is_not_relative_to_the_root(tree):
    folder = tree(FORMATS["my.csv"])
    assert read_records(f"{folder}/my.csv", "/nowhere").source == f"{folder}/my.csv"


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "classes": ["a"]}', encoding="utf-8-sig")
    assert read_records("a.json", str(tmp_path)).classes == ("a",)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.json", '{"images": [],\n "classes": [a]}', ["line 2, column 14", "broken JSON"]),
        ("a.json", "", ["line 1, column 1", "broken JSON"]),
        ("a.json", '{"images": []}', ['"classes": [labels]']),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "A dog."}]}', ["caption", "instances_*"]),
        ("a.txt", "a.jpg dog", [": .txt is", "no annotation format", ".json, .csv, .tsv", "docs/data.md"]),
        ("a.xlsx", "", [": .xlsx is", ".csv"]),
        ("a", "", ["without a suffix", ".csv"]),
        ("a.csv", "picture\n", ["line 1", "image"]),
        ("a.json/b.json", "", ["no image has a text file"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tree, name, content, named):
    folder = tree({name: content})
    source = name.split("/")[0]
    with pytest.raises(DataError) as caught:
        read_records(source, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [f"{folder}/{source}", *named]), message


def test_a_json_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"images": [["\xff"]]}')
    with pytest.raises(DataError, match=r"a\.json.*not a UTF-8 text file \(byte 14\)"):
        read_records("a.json", str(tmp_path))


@pytest.mark.parametrize(
    "source", ["no/such.json", "such.csv", "such.tsv", "folder", "such.txt", "VOC/ImageSets/Main/train.txt"]
)
def test_a_missing_file_names_the_path_and_the_keys(tmp_path, source):
    with pytest.raises(MissingFileError) as caught:
        read_records(source, str(tmp_path))
    named = (f"{tmp_path}/{source}: ", "DATASETS.ROOT_DIR", "DATASETS.TRAIN", "docs/data.md")
    assert all(part in str(caught.value) for part in named)
    assert "\n" not in str(caught.value)


def test_a_missing_file_inside_a_folder_is_the_one_that_is_named(tree, tmp_path):
    folder = tree({"in/a.jpg": ""})
    (tmp_path / "in" / "a.txt").symlink_to("gone.txt")
    with pytest.raises(MissingFileError, match=r"in/a\.txt"):
        read_records("in", folder)


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(tree, monkeypatch):
    folder = tree(FORMATS["my.csv"])

    def locked(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", locked)
    with pytest.raises(DataError, match=r"cannot read the annotation file .*my\.csv: Permission denied"):
        read_records("my.csv", folder)


def test_an_empty_source_is_a_missing_file(tmp_path):
    with pytest.raises(MissingFileError, match=r"DATASETS\.TRAIN"):
        read_records("", str(tmp_path))


def test_shapes_records_are_the_scenes_of_the_split():
    records = read_records("shapes:val", "/anywhere")
    assert len(records.images) == 1000
    assert (records.images[17], records.labels[17]) == ("shapes:val/17", shapes.scene("val", 17).labels)
    assert records.classes == shapes.LABELS


@pytest.mark.parametrize("source", ["shapes:", "shapes:pretrain", "shapes:test/1"])
def test_an_unknown_split_of_shapes_is_an_error_that_lists_the_splits(source):
    with pytest.raises(DataError, match="shapes:train, shapes:val, shapes:test"):
        read_records(source, "")


@pytest.mark.skipif(not RELEASE.is_dir(), reason="the released annotation files are not here")
@pytest.mark.parametrize(
    ("name", "images", "classes", "density"),
    [("test_65_filtered.json", 6392, 65, 2.5703), ("test_17_filtered.json", 2729, 17, 1.2074)],
)
def test_the_released_files_give_the_published_counts(name, images, classes, density):
    records = read_records(name, str(RELEASE))
    assert (len(records.images), len(records.classes)) == (images, classes)
    assert sum(map(len, records.labels)) / images == pytest.approx(density, abs=1e-4)


def test_json_nested_too_deeply_is_one_line(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json: JSON nested too deeply"):
        read_records("deep.json", str(tmp_path))


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.json").write_text('{"images": [["x.jpg", ["a"]]], "classes": ["a"]}')
    assert read_records("~/a.json", "/anywhere").images == ("x.jpg",)


@pytest.mark.parametrize(
    ("part", "expected"), [("[:3]", [0, 1, 2]), ("[5998:]", [5998, 5999]), ("[7:9]", [7, 8]), ("[5999:7000]", [5999])]
)
def test_a_part_of_the_embedded_world_is_written_as_a_slice(part, expected):
    whole, some = read_records("shapes:train", ""), read_records(f"shapes:train{part}", "")
    assert some.images == tuple(f"shapes:train/{i}" for i in expected)
    assert some.labels == tuple(whole.labels[i] for i in expected)
    assert some.classes == whole.classes


@pytest.mark.parametrize("source", ["shapes:train[", "shapes:train[1]", "shapes:train[-3:]", "shapes:[:2]"])
def test_what_is_no_slice_of_the_embedded_world_is_answered_with_an_example(source):
    with pytest.raises(DataError, match=r"is no split of the embedded world.*shapes:train\[:9\]"):
        read_records(source, "")
