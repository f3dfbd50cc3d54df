"""The script that draws what RAM sees where, on a tiny trained run."""

import sys

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from datasets.shapes import LABELS, scene_labels
from engine import cli
from tools import visualize


@pytest.fixture
def drawn(finished, monkeypatch, capsys):
    """Runs the script; gives its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["visualize.py", *map(str, arguments), "--run", str(finished.run)])
        return cli.run(visualize.main), *capsys.readouterr()

    return run


def picture(finished, number=0):
    return finished.data / "images" / f"test{number}.{('png', 'jpg')[number % 2]}"


def test_a_folder_receives_two_figures_of_every_picture_and_one_of_all(drawn, finished, tmp_path):
    code, out, _ = drawn(picture(finished), picture(finished, 1), "--out", tmp_path / "new" / "figures")
    names = ["1-test0-matching.png", "1-test0-regions.png", "2-test1-matching.png", "2-test1-regions.png", "found.png"]
    assert (code, sorted(path.name for path in (tmp_path / "new" / "figures").iterdir())) == (0, names)
    assert sorted(out.split()) == [str(tmp_path / "new" / "figures" / name) for name in names]
    for name in names:
        Image.open(tmp_path / "new" / "figures" / name).load()


def test_a_file_receives_the_figure_of_all_alone(drawn, finished, tmp_path):
    code, _, _ = drawn(picture(finished), picture(finished, 1), "--labels", "dog, kite", "--out", tmp_path / "all.png")
    assert (code, [path.name for path in tmp_path.iterdir()]) == (0, ["all.png"])
    Image.open(tmp_path / "all.png").load()


def test_the_labels_that_are_wanted_are_drawn_of_every_picture(finished, monkeypatch):
    seen = []
    monkeypatch.setattr(visualize, "found_labels", lambda rows, columns: seen.extend(rows))  # noqa: ARG005
    tagger = visualize.Tagger.load(finished.run)
    pictures = [str(picture(finished, k)) for k in range(2)]
    visualize.draw(tagger, tagger.method, pictures, ("kite", "dog"), None)
    assert [{label.split()[0] for label in row.labels} for row in seen] == [{"kite", "dog"}] * 2
    assert all(("*" in label) == label.startswith("kite") for row in seen for label in row.labels)


def test_a_picture_in_which_nothing_is_found_shows_its_nearest_miss(finished):
    tagger = visualize.Tagger.load(finished.run)
    cuts = torch.full((2,), 1.1)  # above every probability
    tagger._cuts = lambda _, threshold: None if threshold is None else cuts
    tags = visualize.tagged(tagger, str(picture(finished)), ("dog", "cat"), ())
    assert len(tags.labels) == 1


def test_figures_of_a_scene_frame_what_is_known_to_be_there(drawn, tmp_path, monkeypatch):
    framed = []
    monkeypatch.setattr(visualize, "TILES", 8)
    monkeypatch.setattr(visualize, "side_by_side", lambda *of, **what: framed.append((of[2:], what)) or Figure())
    assert drawn("shapes:test/3", "--out", tmp_path)[0] == 0
    ((labels, there), what), known = framed[0], scene_labels("test", 3)
    assert (tuple(labels[:there]), len(labels), what) == (known, 8, {"framed": "labels there"})
    assert {path.name for path in tmp_path.iterdir()} > {"1-shapes-test-3-matching.png", "found.png"}


def test_of_scenes_it_is_known_what_they_show():
    assert visualize.truth("shapes:test/3") == scene_labels("test", 3)
    assert visualize.truth("shapes:test/9999") is None
    assert visualize.truth("pictures/a.jpg") is None


def test_labels_of_the_benchmark_compete_in_its_scenes_only(finished):
    tagger = visualize.Tagger.load(finished.run)
    assert set(visualize.candidates_of(tagger, ["a.jpg"], ("sun",))) == {*tagger.seen, "sun"}
    assert set(visualize.candidates_of(tagger, ["a.jpg", "shapes:test/1"], ())) == {*tagger.seen, *LABELS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["missing.jpg", "--out", "x.png"], "missing.jpg"), (["shapes:test/3", "--out", "x.pdf"], "ends in .png"),
     (["shapes:test/1"] * 51 + ["--out", "x.png"], "51 pictures"), (["shapes:test/9999", "--out", "x.png"], "9999"),
     (["shapes:test/3", "--labels", "dog,\u00e9" + " very" * 99, "--out", "x.png"], "very")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_line_and_nothing_is_written(drawn, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = drawn(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []
