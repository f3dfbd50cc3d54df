"""Searching an index from the command line."""

import csv
import json
import re

import pytest

from engine.state import load_state, save_state
from tagging import Tagger
from tagging.collection import Collection
from tools import index_images
from tools.search_images import main


@pytest.fixture(scope="module")
def made(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched") / "index"
    assert index_images.main([str(finished.data / "images"), "--out", str(folder), "--run", str(finished.run)]) == 0
    return folder


@pytest.fixture(scope="module")
def answers(made):
    """Probability by picture and label."""
    collection = Collection.open(made)
    tagger = Tagger.load(collection.run)
    names = ["dog", "lamp", "red house"]
    rows = collection.probabilities(tagger, tagger.labels(names)).tolist()
    return {path: dict(zip(names, row, strict=True)) for path, row in zip(collection.paths, rows, strict=True)}


def ranked(answers, label):
    return sorted(answers, key=lambda path: -answers[path][label])


def test_the_most_probable_pictures_of_a_label_are_printed_first(made, answers, capsys):
    assert main([str(made), "red house", "--top", "3"]) == 0
    head, _, *rows = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert head == ["label", "image", "probability"]
    expected = ranked(answers, "red house")[:3]
    assert rows == [["red house", path, f"{answers[path]['red house']:.3f}"] for path in expected]


def test_a_table_of_all_pictures_and_labels_is_written(made, answers, tmp_path, capsys):
    out = tmp_path / "tags.csv"
    assert main([str(made), "--labels", "lamp, dog", "--out", str(out)]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(answers)
    assert list(rows[0]) == ["image", "lamp", "dog"]
    for row in rows:
        for label in ("lamp", "dog"):
            assert float(row[label]) == pytest.approx(answers[row["image"]][label], abs=1e-5)
    assert capsys.readouterr().out == ""


def test_the_same_is_written_as_a_json_object_in_each_line(made, answers, tmp_path):
    out = tmp_path / "tags.jsonl"
    assert main([str(made), "--labels", "lamp, dog", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == list(answers)
    for row in rows:
        expected = {label: answers[row["image"]][label] for label in ("lamp", "dog")}
        assert row["probabilities"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_best_pictures_of_many_labels_are_written(made, answers, tmp_path, suffix):
    labels, out = tmp_path / "labels.txt", tmp_path / f"best{suffix}"
    labels.write_text("dog\n\n  red house \n")
    assert main([str(made), "--labels", str(labels), "--top", "2", "--out", str(out)]) == 0
    text = out.read_text()
    rows = list(csv.DictReader(text.splitlines())) if suffix == ".csv" else list(map(json.loads, text.splitlines()))
    expected = [(label, rank, ranked(answers, label)[rank - 1]) for label in ("dog", "red house") for rank in (1, 2)]
    assert [(row["label"], int(row["rank"]), row["image"]) for row in rows] == expected
    for row in rows:
        assert float(row["probability"]) == pytest.approx(answers[row["image"]][row["label"]], abs=1e-5)


def test_a_tagger_that_has_moved_is_named(made, answers, finished, tmp_path, capsys):
    Tagger.load(finished.run).export(tmp_path / "exported")
    assert main([str(made), "dog", "--top", "1", "--run", str(tmp_path / "exported")]) == 0
    assert ranked(answers, "dog")[0] in capsys.readouterr().out


def refused(capsys, *line):
    assert main(list(line)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_what_cannot_be_asked_is_one_line_and_code_2(made, tmp_path, capsys):
    assert "make one with tools/index_images.py" in refused(capsys, str(tmp_path), "dog")
    assert "at least 1, not 0" in refused(capsys, str(made), "dog", "--top", "0")
    assert "need --out FILE.csv" in refused(capsys, str(made), "--labels", "dog, lamp")
    assert "a .csv or .jsonl file" in refused(capsys, str(made), "dog", "--out", str(tmp_path / "x.txt"))
    assert "there is no label" in refused(capsys, str(made), "--labels", ", ", "--top", "1")
    assert list(tmp_path.iterdir()) == []


def test_another_tagger_is_refused(made, trained, capsys):
    for path in trained.run.glob("*.pth"):
        state = load_state(path)
        weights = {name: value + 1 for name, value in (state.ema or state.model).items()}
        save_state(path, state._replace(model=weights, ema=None))
    assert "other trained weights" in refused(capsys, str(made), "dog", "--run", str(trained.run))


@pytest.mark.parametrize("line", [[], ["dog", "--labels", "lamp"]])
def test_either_a_label_or_labels_are_named(made, line):
    with pytest.raises(SystemExit) as ended:
        main([str(made), *line])
    assert ended.value.code == 2
