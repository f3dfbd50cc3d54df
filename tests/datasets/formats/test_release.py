import json
from pathlib import Path

import pytest

from datasets.formats.release import checksum, dump, only_listed, records_of
from datasets.records import DataError, Records

RELEASE = Path(__file__).parents[3].parent / "shared" / "data" / "release_json"
PATH = Path("a.json")
RECORDS = Records(
    ("für/犬 1.jpg", 'b"\\.jpg', "c.jpg"),
    (("traffic light", "Hündin"), (), ("Hündin",)),
    ("traffic light", "Hündin", "zebra"),
    "a.json",
    origin={"benchmark": "mine", "files": {"x.txt": "0f"}, "seed": 3},
)


def test_repeated_names_are_kept_once_in_order_of_first_mention():
    content = {"images": [["x.jpg", ["b", "a", "b", "a", "c"]]], "classes": ["a", "b", "c"]}
    assert records_of(content, PATH).labels == (("b", "a", "c"),)


def test_images_and_classes_keep_the_order_of_the_file():
    records = records_of({"images": [["y.jpg", []], ["x.jpg", ["é"]]], "classes": ["é", "B"]}, PATH)
    assert records == (("y.jpg", "x.jpg"), ((), ("é",)), ("é", "B"), "a.json", (), {}, (), ())


def test_an_image_listed_again_with_the_same_labels_is_kept_once_and_noted():
    records = records_of({"images": [["x", ["a", "b"]], ["y", []], ["x", ["b", "a"]]], "classes": ["a", "b"]}, PATH)
    assert records.images == ("x", "y")
    assert records.notes == ("1 repeated mentions of images with the same labels are counted once",)


def test_keys_of_others_are_no_error():
    assert records_of({"images": [], "classes": ["a"], "info": 3}, PATH).classes == ("a",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"images": [["x", []], ["z", ["a", "q"]]], "classes": ["a"]}, ["images[1]", "'q'", "'z'"]),
        ({"images": [["x", ["a"]], ["x", []]], "classes": ["a"]}, ["images[1]", "'x'", "other labels", "images[0]"]),
        ({"images": [], "classes": []}, ["classes is empty"]),
        ({"images": [], "classes": ["a", "b", "a"]}, ["classes[2]", "'a'", "twice"]),
        ({"images": [], "classes": ["a", " "]}, ["classes[1]", "not a name"]),
        ({"images": [], "classes": ["a", 3]}, ["classes[1] is 3"]),
        ({"images": [["x", "a"]], "classes": ["a"]}, ["images[0]", "[path, [labels]]"]),
        ({"images": [["x", [1]]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [["", ["a"]]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [["x"]], "classes": ["a"]}, ["images[0]"]),
        ({"images": [{"id": 3, "file_name": "x.jpg"}], "classes": ["a"]}, ["images[0]", "file_name"]),
        ({"images": {}, "classes": ["a"]}, ['"images": [[path, [labels]], ...]']),
        ({"images": []}, ['"classes": [labels]']),
        ([["x", ["a"]]], ['"images": [[path, [labels]], ...]']),
        ({"images": [], "classes": ["a"], "origin": "Rome"}, ['"origin"', "object"]),
        ({"images": [], "classes": ["a"], "unlisted": -1}, ["\"unlisted\" is '-1'", "absent, unknown"]),
        ({"images": [], "classes": ["a"], "unlisted": ["unknown"]}, ['"unlisted"']),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_entry(content, named):
    with pytest.raises(DataError) as caught:
        records_of(content, PATH)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ["a.json", *named]), message


def test_a_list_that_is_written_is_read_back():
    again = records_of(json.loads(dump(RECORDS)), PATH)
    assert again == RECORDS._replace(origin={**RECORDS.origin, "checksum": checksum(RECORDS)})


def test_writing_again_what_was_read_gives_the_same_text():
    text = dump(RECORDS)
    assert dump(records_of(json.loads(text), PATH)) == text


def test_a_list_without_images_is_read_back():
    empty = RECORDS._replace(images=(), labels=())
    assert records_of(json.loads(dump(empty)), PATH)[:3] == empty[:3]


def test_an_image_is_a_line_with_letters_as_they_are():
    assert '["für/犬 1.jpg", ["traffic light", "Hündin"]],' in dump(RECORDS).splitlines()


def test_the_checksum_is_the_sha256_of_compact_json():
    """printf '[["a.jpg"],[["ü"]],["ü"]]' | sha256sum"""
    expected = "800ab152b628547d17eab74bb8fe10e4c4c8f995b0dedbddc668b829c322160f"
    assert checksum(Records(("a.jpg",), (("ü",),), ("ü",), "x")) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"images": ("für/犬 1.jpg", 'b"\\.jpg', "d.jpg")},
        {"images": ("c.jpg", 'b"\\.jpg', "für/犬 1.jpg")},
        {"labels": (("Hündin", "traffic light"), (), ("Hündin",))},
        {"labels": (("traffic light", "Hündin"), ("Hündin",), ())},
        {"classes": ("Hündin", "traffic light", "zebra")},
        {"classes": ("traffic light", "Hündin")},
    ],
)
def test_the_checksum_tells_lists_that_say_something_else(change):
    assert checksum(RECORDS._replace(**change)) != checksum(RECORDS)


@pytest.mark.parametrize("change", [{"source": "b.json"}, {"notes": ("x",)}, {"origin": {}}])
def test_the_checksum_does_not_depend_on_where_a_list_is_from(change):
    assert checksum(RECORDS._replace(**change)) == checksum(RECORDS)


@pytest.mark.skipif(not RELEASE.is_dir(), reason="the released annotation files are not here")
def test_every_released_file_is_read_and_written_without_a_change():
    files = sorted(RELEASE.rglob("*.json"))
    assert files
    for file in files:
        records = records_of(json.loads(file.read_text()), file)
        assert records_of(json.loads(dump(records)), file)[:3] == records[:3]


def test_what_is_not_listed_can_be_unknown():
    content = {"images": [["x.jpg", ["b"]], ["y.jpg", []]], "classes": ["a", "b", "c"], "unlisted": "unknown"}
    assert records_of(content, PATH).unknown == (("a", "c"), ("a", "b", "c"))
    assert records_of({**content, "unlisted": "absent"}, PATH).unknown == ()


def test_a_list_of_single_labels_is_written_and_read_back():
    records = only_listed(RECORDS)
    again = records_of(json.loads(dump(records)), PATH)
    assert again == records._replace(origin=again.origin)
    assert checksum(records) != checksum(RECORDS)
    assert again.origin["checksum"] == checksum(records)


def test_a_list_with_absent_and_unknown_labels_of_an_image_cannot_be_written():
    records = Records(("a.jpg",), (("x",),), ("x", "y", "z"), "mine.csv", unknown=(("y",),))
    with pytest.raises(DataError, match=r"mine\.csv: .* cannot tell labels that are not known from absent ones"):
        dump(records)
