"""predict.py as from the command line: on a small finished training, and without one."""

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.shapes import scene
from engine import cli
from engine.state import load_state, save_state
from tagging import Tagger
from tagging.collection import extend
from tagging.inputs import find_pictures

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("script_predict", ROOT / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with pics/0.png to pics/4.png, scenes of the embedded world."""
    (tmp_path / "pics").mkdir()
    for index in range(5):
        scene("test", index).image.save(tmp_path / "pics" / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predict(script, finished, folder, monkeypatch):
    """Runs it on the finished training; gives the exit code."""

    def run(*arguments, run=finished.run, stdin=""):
        named = [] if run is None else ["--run", str(run)]
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, arguments), *named, "--device", "cpu"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        return cli.run(script.main)

    assert folder == Path.cwd()
    return run


@pytest.fixture(scope="module")
def tagger(finished):
    return Tagger.load(finished.run)


def rows(file):
    return [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]


def lines_of(text):
    """The lines of stderr, without progress bars."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return [line for line in lines if line and "picture/s" not in line]


def test_the_table_has_a_row_for_each_picture_with_what_the_tagger_says(predict, tagger, capsys):
    assert predict("pics", "--labels", "dog, kite, red circle", "--threshold", 0) == 0
    head, rule, *found = capsys.readouterr().out.splitlines()
    assert (head.split(), rule.split()) == (["picture", "labels"], ["-" * len("pics/0.png"), "------"])
    assert len(found) == 5
    for index, line in enumerate(found):
        tags = tagger.tag(f"pics/{index}.png", ["dog", "kite", "red circle"])
        cells = [f"{label} {value:.2f}" for label, value in zip(*tags[:2], strict=True)]
        assert line == f"pics/{index}.png  {', '.join(cells)}"


def test_without_labels_it_asks_for_those_of_the_training_above_their_thresholds(predict, tagger):
    assert predict("pics", "--out", "t.jsonl", "--batch", 2) == 0
    expected = tagger.tag([f"pics/{k}.png" for k in range(5)], threshold="best")
    for row, tags in zip(rows("t.jsonl"), expected, strict=True):
        assert tuple(row["labels"]) == tags.labels
        assert row["probabilities"] == pytest.approx(tags.probabilities, abs=1e-5)


def test_top_keeps_the_most_probable(predict, tagger):
    assert predict("pics/0.png", "--threshold", 0, "--top", 2, "--out", "t.jsonl") == 0
    assert rows("t.jsonl")[0]["labels"] == list(tagger.tag("pics/0.png", top_k=2).labels)


def test_the_published_score_has_a_name_of_its_own_and_five_labels(predict, tagger, capsys):
    labels = [f"label {k}" for k in range(8)]
    assert predict("pics/0.png", "--labels", ", ".join(labels), "--score", "paper", "--out", "t.jsonl") == 0
    (row,) = rows("t.jsonl")
    expected = tagger.tag("pics/0.png", labels, score="paper", top_k=5)
    assert row["labels"] == list(expected.labels)
    assert row["scores"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert "they are no probabilities" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_a_training_on_a_gpu_is_asked_on_a_cpu_with_one_line_about_its_solver(predict, trained, capsys, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    path = trained.run / "checkpoint.pth"
    save_state(path, load_state(path)._replace(config=trained.config("MODEL.OT_SOLVER", "triton").dump()))
    assert predict("pics", "--score", "paper", "--batch", 2, "--out", "there.jsonl", run=trained.run) == 0
    said = [line for line in lines_of(capsys.readouterr().err) if "OT_SOLVER" in line]
    assert len(said) == 1
    assert said[0].startswith("warning: MODEL.OT_SOLVER triton ")
    assert predict("pics", "--score", "paper", "--batch", 2, "--out", "here.jsonl") == 0
    assert rows("there.jsonl") == rows("here.jsonl")


def test_pictures_come_from_a_list_from_patterns_and_from_the_embedded_world(predict):
    assert predict("-", "pics/[34].png", "shapes:test/0", "--out", "t.jsonl", stdin="pics/1.png\npics/0.png\n") == 0
    found = rows("t.jsonl")
    assert [row["image"] for row in found] == [
        "pics/1.png", "pics/0.png", "pics/3.png", "pics/4.png", "shapes:test/0",
    ]  # fmt: skip
    assert found[1]["labels"] == found[4]["labels"]  # the same scene


def test_maps_are_a_picture_for_each_label_that_was_found(predict):
    assert predict("pics", "--threshold", 0.2, "--maps", "pics/maps", "--out", "t.jsonl") == 0
    for row in rows("t.jsonl"):
        maps = Path("pics/maps", Path(row["image"]).name)
        names = [f"{rank}-{label}.png" for rank, label in enumerate(row["labels"], 1)]
        assert sorted(path.name for path in maps.iterdir()) == names
    assert sum(len(row["labels"]) for row in rows("t.jsonl")) > 0
    assert predict("pics", "--threshold", 0.2, "--maps", "pics/maps", "--out", "again.jsonl") == 0
    assert rows("again.jsonl") == rows("t.jsonl")  # maps are no pictures


def interrupt(monkeypatch, script, after):
    """Ctrl-C once so many batches were answered."""
    whole = script.Predictor.batches

    def batches(self, pictures, size):
        for number, batch in enumerate(whole(self, pictures, size)):
            if number == after:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(script.Predictor, "batches", batches)


def test_the_page_has_all_pictures_even_where_some_were_written_before(predict, script, monkeypatch):
    page = pytest.importorskip("tagging.page")
    entries = []

    def write_page(path, found, *, title):
        entries[:] = [path, title, *found]

    monkeypatch.setattr(page, "write_page", write_page)
    arguments = ("pics", "--threshold", 0, "--html", "new/p.html", "--out", "t.jsonl", "--batch", 2)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, script, after=1)
        assert predict(*arguments) == 130
    assert predict(*arguments) == 0
    path, title, *found = entries
    assert (path, title) == ("new/p.html", "5 pictures, 4 labels")
    for entry, row in zip(found, rows("t.jsonl"), strict=True):
        assert (entry.picture, list(entry.labels)) == (row["image"], row["labels"])
        assert entry.probabilities == pytest.approx(row["probabilities"], abs=1e-5)
        assert len(entry.maps) == 4
        np.testing.assert_array_equal(np.asarray(entry.image), np.asarray(Image.open(entry.picture)))


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "texts"])
def test_an_interrupted_run_goes_on_where_it_was(predict, script, name):
    def files(place):
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        return [path.read_bytes() for path in found if path.is_file()]

    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, script, after=1)
        assert predict("pics", "--threshold", 0, "--batch", 2, "--out", name) == 130
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        whole = script.Predictor.batches
        patch.setattr(script.Predictor, "batches", lambda self, *a: (asked.extend(a[0]), whole(self, *a))[1])
        assert predict("pics", "--threshold", 0, "--batch", 2, "--out", name) == 0
    assert asked == ["pics/2.png", "pics/3.png", "pics/4.png"]
    assert predict("pics", "--threshold", 0, "--batch", 2, "--out", f"whole/{name}") == 0
    assert files(Path(name)) == files(Path("whole", name)) != []
    assert {path.name for path in Path().iterdir()} == {"pics", name, "whole"}


@pytest.mark.parametrize(
    ("other", "named"),
    [(["--labels", "dog"], "labels"), (["--threshold", "0.5"], "threshold"), (["--top", "1"], "top"),
     (["--score", "paper"], "threshold, top, score"), (["--maps", "m"], "maps")],
)  # fmt: skip
def test_another_question_is_refused_in_one_line(predict, script, capsys, other, named):
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, script, after=1)
        predict("pics", "--batch", 2, "--out", "t.jsonl")
    before = Path("t.jsonl").read_bytes()
    capsys.readouterr()
    assert predict("pics", "--batch", 2, "--out", "t.jsonl", *other) == 2
    (line,) = lines_of(capsys.readouterr().err)
    assert line.startswith(f"error: t.jsonl was begun with other values of {named}: ask the same again")
    assert Path("t.jsonl").read_bytes() == before


def test_another_model_is_refused_in_one_line(predict, script, finished, tmp_path, capsys):
    other = Path(shutil.copytree(finished.run, tmp_path / "other"))
    Tagger.load(other, averaged=False).export(tmp_path / "exported")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, script, after=1)
        predict("pics", "--batch", 2, "--out", "t.jsonl")
    capsys.readouterr()
    assert predict("pics", "--out", "t.jsonl", run=tmp_path / "exported") == 2
    assert "begun with other values of model" in capsys.readouterr().err
    assert predict("pics", "--out", "t.jsonl", run=other) == 0  # a copy is the same


def test_a_killed_process_loses_no_line(finished, folder, forked):
    for index in range(5, 100):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(folder / "pics" / f"{index}.png")
    line = ["pics", "--run", finished.run, "--batch", "1", "--threshold", "0", "--out", "t.jsonl"]
    process = forked(ROOT / "predict.py", *line)
    while process.poll() is None and not (Path("t.jsonl").is_file() and Path("t.jsonl").read_bytes().count(b"\n") > 9):
        time.sleep(0.001)
    process.kill()
    with open("t.jsonl", "ab") as file:
        file.write(b'{"image": "pics/')  # as a kill in the middle of a line leaves it
    begun = Path("t.jsonl").read_bytes()
    assert 0 < begun.count(b"\n") < 100
    assert forked(ROOT / "predict.py", *line).wait() == 0
    assert Path("t.jsonl").read_bytes().startswith(begun[: begun.rindex(b"\n")])
    assert [row["image"] for row in rows("t.jsonl")] == [found.picture for found in find_pictures(["pics"])]


def test_what_cannot_be_read_is_named_and_counted_and_the_rest_is_done(predict, capsys):
    Path("pics/2.png").write_text("no picture")
    os.truncate("pics/3.png", 100)
    assert predict("pics", "--out", "t.csv") == 1
    errors = lines_of(capsys.readouterr().err)
    assert [line for line in errors if line.startswith("left out: ")] == [
        line for line in errors if "pics/2.png" in line or "pics/3.png" in line
    ]
    assert sum("left out" in line for line in errors) == 2
    assert "2 of 5 pictures could not be read" in errors
    assert [line.split(",")[0] for line in Path("t.csv").read_text().splitlines()] == [
        "image", "pics/0.png", "pics/1.png", "pics/4.png",
    ]  # fmt: skip


@pytest.mark.parametrize("more", [["--out", "t.csv"], ["--out", "t.json"], ["--html", "t.html"], []])
def test_if_nothing_can_be_read_nothing_is_written(predict, capsys, more):
    pytest.importorskip("tagging.page")
    Path("x.png").write_text("no picture")
    before = sorted(Path().iterdir())
    assert predict("x.png", *more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert lines_of(captured.err)[-1].startswith("error: no picture can be read: ")
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "no pictures: name files"), (["gone.png"], "no file or folder 'gone.png'"),
     (["pics/*.gif"], "no pictures in pics/*.gif"), (["pics", "--labels", ","], "there is no label in it"),
     (["pics", "--labels", "dog, dog"], "'dog' is listed twice"), (["pics", "--labels", "dog " * 80], "is longer than"),
     (["pics", "--labels", "gone.txt"], "no file gone.txt"), (["pics", "--threshold", "2"], "the threshold 2 is none"),
     (["pics", "--threshold", "good"], "the threshold 'good' is none"), (["pics", "--top", "0"], "--top is 0"),
     (["pics", "--batch", "-1"], "--batch is -1"), (["pics", "--out", "t.xlsx"], "--out t.xlsx: the name ends in .csv"),
     (["pics", "--score", "paper", "--maps", "m"], "maps belong to probabilities"),
     (["pics", "--score", "paper", "--threshold", "best"], "the threshold 'best' is one of probabilities"),
     (["pics", "--config_file", "x.yml"], "give --run, or")],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_no_file(predict, capsys, arguments, message):
    before = sorted(Path().rglob("*"))
    assert predict(*arguments) == 2
    (line,) = lines_of(capsys.readouterr().err)
    assert line.startswith("error: ")
    assert message in line
    assert sorted(Path().rglob("*")) == before


def test_a_run_that_is_not_there_is_one_line(predict, capsys):
    assert predict("pics", run="gone") == 2
    assert lines_of(capsys.readouterr().err) == [
        "error: no run gone: name a run, a folder of runs, a checkpoint or an exported folder"
    ]


def test_the_newest_run_below_runs_is_taken(predict, finished, capsys):
    shutil.copytree(finished.run, Path("runs", "own", finished.run.name))
    assert predict("pics/0.png", run=None) == 0
    assert capsys.readouterr().err.startswith(f"runs/own/{finished.run.name}/checkpoint.pth: 1 picture, 4 labels\n")


def test_without_a_run_clip_answers_with_scores_of_the_list_and_says_so(predict, capsys):
    config = str(ROOT / "configs" / "shapes.yml")
    labels = ", ".join(f"{colour} {shape}" for colour in ("red", "blue") for shape in ("circle", "star", "arrow"))
    assert predict("pics", "--labels", labels, "--config_file", config, "--out", "t.jsonl", run=None) == 0
    assert lines_of(capsys.readouterr().err)[0].startswith(
        "zero-shot CLIP ViT-S-8-shapes: 5 pictures, 6 labels; scores"
    )
    assert [len(row["scores"]) for row in rows("t.jsonl")] == [5] * 5
    assert predict("pics", "--config_file", config, run=None) == 2
    assert "name some with --labels" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error(finished, folder):
    line = [sys.executable, str(ROOT / "predict.py"), "pics", "--run", str(finished.run), "--batch", "1"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0
    assert "Traceback" not in errors
    assert "Broken" not in errors


def test_an_index_is_asked_without_its_pictures(predict, finished, folder, tagger, capsys):
    paths = [f"pics/{k}.png" for k in range(5)]
    extend(folder / "index", tagger, paths, run=str(finished.run))
    for path in paths:
        Path(path).unlink()
    assert predict("--index", "index", "--search", "red circle", "--top", "3", run=None) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == 3
    numbers = [float(row.split()[-1]) for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    assert predict("--index", "index", "--labels", "red circle, dog", "--out", "all.csv", run=None) == 0
    assert Path("all.csv").read_text("utf-8").splitlines()[0] == "image,red circle,dog"
    assert len(Path("all.csv").read_text("utf-8").splitlines()) == 6
    assert predict("--index", "index", "--labels", "dog", "--out", "all.csv", run=None) == 2
    assert "all.csv is there already" in capsys.readouterr().err
    assert len(Path("all.csv").read_text("utf-8").splitlines()) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--search", "dog"), "--search needs --index DIR, made by tools/index_images.py"),
        (("--index", "index"), "--index answers without pictures, for --search LABEL or for --labels"),
        (("--index", "index", "--search", "dog", "--labels", "cat"), "--index answers without pictures"),
        (("pics", "--index", "index", "--search", "dog"), "--index answers without pictures"),
        (("--index", "index", "--search", "dog", "--maps", "m"), "--maps needs the pictures themselves"),
    ],
)
def test_what_an_index_cannot_answer_is_one_line(predict, capsys, arguments, said):
    assert predict(*arguments, run=None) == 2
    assert said in lines_of(capsys.readouterr().err)[-1]


def test_synonyms_are_asked_of_an_index_as_of_pictures(predict, finished, folder):
    text = '{"dog": {"synonyms": ["hound"]}, "cat": {"prompt": "A picture of a cat."}}'
    (folder / "labels.json").write_text(text)
    paths = [f"pics/{k}.png" for k in range(5)]
    extend(folder / "index", Tagger.load(finished.run), paths, run=str(finished.run))
    assert predict(*paths, "--labels", "labels.json", "--threshold", "0", "--out", "direct.jsonl") == 0
    assert predict("--index", "index", "--labels", "labels.json", "--out", "index.jsonl", run=None) == 0
    for direct, indexed in zip(rows("direct.jsonl"), rows("index.jsonl"), strict=True):
        expected = dict(zip(direct["labels"], direct["probabilities"], strict=True))
        assert indexed["probabilities"] == pytest.approx(expected, abs=0.02)  # features of an index are rounded
    assert predict("--index", "index", "--labels", "labels.json", "--top", "2", "--out", "best.csv", run=None) == 0
    assert [line.split(",")[0] for line in Path("best.csv").read_text().splitlines()[1:]] == ["dog"] * 2 + ["cat"] * 2
