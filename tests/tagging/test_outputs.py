"""Predictions as files."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from datasets.formats.table import read_table
from datasets.formats.textfiles import read_folder
from datasets.records import DataError
from tagging.inputs import Listed
from tagging.outputs import open_output
from tagging.predictor import Prediction
from tagging.progress import OutputError

PREDICTIONS = [
    Prediction("p/a.png", ("dog", "fire truck"), (0.9876543, 0.5)),
    Prediction('p/b, "c".png', (), ()),
    Prediction("p/sub/ä.png", ("häuser",), (1e-7,)),
]
PICTURES = [Listed(one.picture, one.picture.removeprefix("p/")) for one in PREDICTIONS]
ROWS = [
    {"image": "p/a.png", "labels": ["dog", "fire truck"], "probabilities": [0.987654, 0.5]},
    {"image": 'p/b, "c".png', "labels": [], "probabilities": []},
    {"image": "p/sub/ä.png", "labels": ["häuser"], "probabilities": [1e-7]},
]
WITH_PYARROW = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")


def opened(
    path, *, numbers="probabilities", labels=("dog", "fire truck", "häuser"), pictures=PICTURES, threshold="best"
):
    return open_output(str(path), pictures, labels, numbers=numbers, identity={"threshold": threshold})


def written(path, predictions=PREDICTIONS, **more):
    with opened(path, **more) as output:
        for one in predictions:
            output.add([one])
        output.finish()


def rows_of_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines_have_a_picture_each(tmp_path):
    written(tmp_path / "t.jsonl")
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text("utf-8").splitlines()] == ROWS


def test_json_is_a_list(tmp_path):
    written(tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text("utf-8")) == ROWS


def test_a_csv_has_cells_of_labels_and_of_numbers(tmp_path):
    written(tmp_path / "t.csv")
    rows = rows_of_csv(tmp_path / "t.csv")
    assert [row["image"] for row in rows] == [row["image"] for row in ROWS]
    assert [row["labels"].split("|") if row["labels"] else [] for row in rows] == [row["labels"] for row in ROWS]
    assert rows[0]["probabilities"] == "0.987654|0.5"


def test_training_reads_the_csv(tmp_path):
    written(tmp_path / "t.csv")
    records = read_table(tmp_path / "t.csv")
    assert list(records.images) == [row["image"] for row in ROWS]
    assert [list(labels) for labels in records.labels] == [row["labels"] for row in ROWS]


def test_training_reads_a_folder_of_text_files_that_lies_over_the_pictures(tmp_path):
    for found in PICTURES:
        (tmp_path / found.name).parent.mkdir(exist_ok=True)
        (tmp_path / found.name).touch()
    written(tmp_path)
    records = read_folder(tmp_path)
    labels = {Path(image).name: list(row) for image, row in zip(records.images, records.labels, strict=True)}
    assert labels == {"a.png": ["dog", "fire truck"], 'b, "c".png': [], "ä.png": ["häuser"]}
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}.p*"))


@WITH_PYARROW
def test_parquet_has_lists_of_labels_and_numbers(tmp_path):
    parquet = importlib.import_module("pyarrow.parquet")
    written(tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["image"] == [row["image"] for row in ROWS]
    assert table["labels"] == [row["labels"] for row in ROWS]
    assert table["probabilities"][0] == pytest.approx(ROWS[0]["probabilities"])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005
    with pytest.raises(OutputError, match="needs pyarrow: pip install pyarrow"):
        opened(tmp_path / "t.parquet")


def test_scores_are_not_called_probabilities(tmp_path):
    written(tmp_path / "t.csv", numbers="scores")
    written(tmp_path / "t.jsonl", numbers="scores")
    assert "scores" in rows_of_csv(tmp_path / "t.csv")[0]
    assert "scores" in json.loads((tmp_path / "t.jsonl").read_text("utf-8").splitlines()[0])


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "texts", pytest.param("t.parquet", marks=WITH_PYARROW)])
def test_what_was_left_in_the_middle_is_gone_on_with_to_the_same_bytes(tmp_path, name):
    def files(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    written(tmp_path / "whole" / name)
    with opened(tmp_path / "halves" / name) as output:
        output.add(PREDICTIONS[:2])
    with pytest.raises(OutputError, match="begun with other values of threshold"):
        opened(tmp_path / "halves" / name, threshold=0.5)
    with opened(tmp_path / "halves" / name) as output:
        assert output.done == {"p/a.png", 'p/b, "c".png'}
        output.add(PREDICTIONS)  # what is there already is not written twice
        output.finish()
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "texts"])
def test_finished_files_are_not_written_over(tmp_path, name):
    written(tmp_path / name)
    with pytest.raises(OutputError, match="is there already: remove it"):
        opened(tmp_path / name)


def test_labels_that_somebody_wrote_are_not_written_over(tmp_path):
    (tmp_path / "a.txt").write_text("cat\n")
    with pytest.raises(OutputError, match=r"a\.txt is there already"):
        opened(tmp_path)


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "texts"])
def test_nothing_is_left_where_nothing_was_predicted(tmp_path, name):
    written(tmp_path / name, [])
    assert list(tmp_path.iterdir()) == []


def test_missing_folders_are_made(tmp_path):
    written(tmp_path / "new" / "folder" / "t.json")
    assert (tmp_path / "new" / "folder" / "t.json").is_file()


def test_two_pictures_do_not_share_a_text_file(tmp_path):
    pictures = [Listed("p/a.png", "a.png"), Listed("p/a.jpg", "a.jpg")]
    with pytest.raises(DataError, match=r"would both be written to .*a\.txt"):
        opened(tmp_path / "texts", pictures=pictures)
    opened(tmp_path / "t.csv", pictures=pictures)


@pytest.mark.parametrize("name", ["t.xlsx", "/"])
def test_an_ending_that_is_none_is_answered_with_those_there_are(name):
    with pytest.raises(OutputError, match=r"ends in \.csv, \.jsonl, \.json, \.parquet, or is that of a folder"):
        opened(name)


def test_a_label_with_a_bar_does_not_fit_into_a_csv(tmp_path):
    with pytest.raises(OutputError, match=r"'a\|b' has one: write \.jsonl"):
        opened(tmp_path / "t.csv", labels=["dog", "a|b"])
