"""The labels of a command line."""

import json

import pytest

from datasets.records import DataError
from tagging.spellings import read_spellings

TEMPLATE = "A photo of a {}."


def test_names_stand_between_commas():
    found = read_spellings(" dog,  traffic   light ,bus,", TEMPLATE)
    assert found == (("dog", "traffic light", "bus"), ("dog", "traffic light", "bus"), {})


def test_a_text_file_has_a_name_a_line(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffdog\r\n\r\nfish, raw\r\n".encode())
    assert read_spellings(str(file), TEMPLATE).names == ("dog", "fish, raw")


def test_synonyms_are_further_spellings_and_texts_are_kept(tmp_path):
    file = tmp_path / "labels.json"
    entries = {"sofa": {"synonyms": ["couch", "settee"]}, "hat": {"prompt": "In a hat."}, "cat": {"name": "black cat"}}
    file.write_text(json.dumps(entries))
    found = read_spellings(str(file), TEMPLATE)
    assert found.names == ("sofa", "hat", "cat", "couch", "settee")
    assert found.labels == ("sofa", "hat", "cat", "sofa", "sofa")
    assert found.texts == {"hat": "In a hat.", "cat": "A photo of a black cat."}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [(None, "dog, cat, dog", "'dog' is listed twice"), (None, "dog, DOG", "'dog' and 'DOG' are the same to CLIP"),
     (None, " , ", "there is no label in it"), ("a.txt", "\n\n", "a.txt: there is no label in it"),
     ("a.txt", "dog\ncat\ndog\n", "a.txt: the label 'dog' is listed twice"),
     ("a.json", "{}", "a.json: there is no label in it"), ("a.json", '{"dog": {"prompts": 1}}', "'dog' takes"),
     ("a.json", '{"a": {}, "b": {"synonyms": ["A"]}}', "'a' and 'A' are the same to CLIP"),
     ("a.json", r'{"a\nb": {}}', "has a line break")],
)  # fmt: skip
def test_labels_that_cannot_be_asked_for_are_named(tmp_path, name, content, message):
    if name is not None:
        (tmp_path / name).write_text(content)
        content = str(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_spellings(content, TEMPLATE)


@pytest.mark.parametrize("name", ["gone.txt", "gone.json"])
def test_a_file_that_is_not_there_is_no_label(name):
    with pytest.raises(DataError, match=f"no file {name}: labels are names between commas"):
        read_spellings(name, TEMPLATE)
