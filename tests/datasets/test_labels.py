import json
import time

import pytest

from datasets.labels import read_labels, read_names
from datasets.records import DataError, MissingFileError

TEMPLATE = "A photo of a {}."


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "labels.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_a_name_stands_in_the_template_and_a_prompt_for_itself(written):
    path = written({"SSBag": {"name": "shoulder bag"}, "Hat": {"prompt": "A pedestrian {with} a hat."}, "Box": {}})
    notes = read_labels(path, TEMPLATE)
    assert notes.texts == {"SSBag": "A photo of a shoulder bag.", "Hat": "A pedestrian {with} a hat."}
    assert notes.labels == {"SSBag", "Hat", "Box"}


def test_synonyms_lead_to_their_label(written):
    path = written({"sofa": {"synonyms": ["couch", "Söfa"]}, "tv": {"synonyms": ["television"], "name": "TV set"}})
    assert read_labels(path, TEMPLATE).synonyms == {"couch": "sofa", "Söfa": "sofa", "television": "tv"}


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "a.json").write_text('{"a": {"name": "b"}}', encoding="utf-8-sig")
    assert read_labels(tmp_path / "a.json", "{}").texts == {"a": "b"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (["a"], 'expected {"label"'),
        ({"a": "b"}, "'a' takes \"name\" or"),
        ({"a": {"words": "b"}}, "'a' takes \"name\" or"),
        ({"a": {"name": "b", "prompt": "c"}}, "'a' takes \"name\" or"),
        ({"a": {"name": " "}}, "'a': names, prompts and synonyms are texts"),
        ({"a": {"prompt": 3}}, "'a': names, prompts and synonyms are texts"),
        ({"a": {"synonyms": "b"}}, "'a': names, prompts and synonyms are texts"),
        ({"a": {"synonyms": [""]}}, "'a': names, prompts and synonyms are texts"),
        ({"a": {"synonyms": ["b"]}, "b": {}}, "'b', a synonym of 'a', already stands for itself"),
        ({"a": {"synonyms": ["x"]}, "b": {"synonyms": ["x"]}}, "'x', a synonym of 'b', already stands for 'a'"),
        ({"a": {"prompt": "One."}, "b": {"prompt": "One."}}, "'a' and 'b' have the same text 'One.'"),
        ('{"a": {},\n"b": }', "line 2, column 6: broken JSON"),
    ],
)
def test_a_file_of_another_kind_is_one_line_that_names_it_and_the_label(written, content, said):
    path = written(content)
    with pytest.raises(DataError) as caught:
        read_labels(path, TEMPLATE)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(MissingFileError, match=r"no file .*labels\.json.*DATASETS\.LABELS"):
        read_labels(tmp_path / "labels.json", TEMPLATE)


def test_a_folder_and_a_binary_file_are_named(tmp_path):
    (tmp_path / "b.json").write_bytes(b'{"a\xff": {}}')
    with pytest.raises(DataError, match=rf"{tmp_path}: Is a directory"):
        read_labels(tmp_path, TEMPLATE)
    with pytest.raises(DataError, match=r"b\.json: not a UTF-8 text file \(byte 3\)"):
        read_labels(tmp_path / "b.json", TEMPLATE)


def test_names_may_stand_in_the_configuration():
    assert read_names(("cat", "traffic light"), "", "DATASETS.SEEN") == ("cat", "traffic light")


def test_names_may_stand_in_a_text_file_with_blank_lines_and_any_line_ends(tmp_path):
    (tmp_path / "seen.txt").write_bytes("\ufeffcat \r\n\r\ntraffic light\nÄpfel".encode())
    assert read_names(("seen.txt",), str(tmp_path), "DATASETS.SEEN") == ("cat", "traffic light", "Äpfel")


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a", "b", "a"), "DATASETS.UNSEEN: 'a' is listed twice"), (("a", 3), "DATASETS.UNSEEN: 3 is not the name"),
     (("",), "DATASETS.UNSEEN: '' is not the name")],
)  # fmt: skip
def test_names_that_are_none_are_told_with_the_key(names, said):
    with pytest.raises(DataError) as caught:
        read_names(names, "", "DATASETS.UNSEEN")
    assert said in str(caught.value)


def test_a_file_without_names_is_told(tmp_path):
    (tmp_path / "unseen.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"unseen\.txt: there is no label in it"):
        read_names(("unseen.txt",), str(tmp_path), "DATASETS.UNSEEN")


def test_a_name_listed_twice_in_a_file_is_told_with_the_file(tmp_path):
    (tmp_path / "unseen.txt").write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"unseen\.txt: 'a' is listed twice"):
        read_names(("unseen.txt",), str(tmp_path), "DATASETS.UNSEEN")


def test_a_hundred_thousand_names_are_read_in_seconds(tmp_path):
    names = [f"label {k}" for k in range(100_000)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    begun = time.process_time()
    assert list(read_names(("names.txt",), str(tmp_path), "DATASETS.UNSEEN")) == names
    assert time.process_time() - begun < 5  # to compare each with all before it takes a minute
