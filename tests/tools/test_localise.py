"""The numbers of localisation: on a tiny run, and what goes into them."""

import json
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from configs import load_config
from datasets.shapes import LABELS, SEEN, scene_labels, scene_masks
from datasets.worlds import WORLDS
from engine import cli
from tagging.localisation import METRICS, ROWS
from tools import localise

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def run(train_script, tmp_path_factory):
    """A tiny run on the benchmark."""
    folder = tmp_path_factory.mktemp("shapes")
    overrides = ["OUTPUT_DIR", str(folder), "SOLVER.MAX_EPOCHS", "1", "DATASETS.SUBSET", "16"]
    train_script.train(load_config("configs/tiny.yml", overrides), None)
    return next(folder.iterdir())


@pytest.fixture
def called(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["localise.py", *map(str, arguments)])
        return cli.run(localise.main), *capsys.readouterr()

    return call


def test_a_run_gives_a_table_for_each_group_and_the_numbers_with_their_origin(called, run, tmp_path):
    code, out, _ = called(run, "--images", "3", "--out", tmp_path / "found.json")
    assert code == 0
    assert [line.split(" |")[0] for line in out.splitlines() if "labels" in line] == [
        "| all labels", "| seen labels", "| unseen labels"
    ]  # fmt: skip
    content = json.loads((tmp_path / "found.json").read_text())
    assert content["about"][0]["lists"]["shapes:test"]["images"] == 3
    assert content["about"][0]["checkpoint"]["file"] == "checkpoint.pth"
    assert content["mean"] == content["runs"][0]
    assert content["standard deviation"] is None
    assert f"| plan, average | {100 * content['mean']['plan, average']['all']['pointing']:.1f} |" in out


def test_a_map_that_is_the_same_everywhere_scores_what_chance_does(called, run, tmp_path):
    called(run, "--images", "4", "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["mean"]["plan, average"]["all"]
    masks = [m for k in range(4) for m in torch.from_numpy(scene_masks("test", k)) if m.sum() >= 0.25 * 4096 / 16]
    touched = [float((m.unflatten(0, (4, 16)).unflatten(2, (4, 16)).amax((1, 3)) > 0).float().mean()) for m in masks]
    area = [float(m.mean()) for m in masks]
    assert found["pointing"] == pytest.approx(statistics.mean(touched), abs=1e-5)
    assert found["mass"] == pytest.approx(statistics.mean(area), abs=1e-5)
    assert found["contrast"] == pytest.approx(0.5, abs=1e-3)


def test_several_runs_give_mean_and_standard_deviation():
    runs = [{"x": {"all": {"iou": value}}} for value in (0.1, 0.2, 0.6)]
    mean, deviation = localise.across(runs, statistics.mean), localise.across(runs, statistics.stdev)
    assert mean["x"]["all"]["iou"] == pytest.approx(0.3)
    assert deviation["x"]["all"]["iou"] == pytest.approx(0.2645751)
    (line,) = [line for line in localise.table(mean, deviation, "all").splitlines() if line.startswith("| x")]
    assert line == "| x | - | 30.0 ± 26.5 | - | - |"


def test_numbers_of_seen_and_unseen_labels_are_apart():
    values = torch.tensor([[1.0, 0.5, 0.2], [0.0, 0.1, 0.4], [1.0, 0.3, 0.6]])
    found = localise.means_by_group(values, torch.tensor([True, False, True]))
    assert found["seen"] == pytest.approx(dict(zip(METRICS, (1.0, 0.4, 0.4), strict=True)))
    assert found["unseen"] == pytest.approx(dict(zip(METRICS, (0.0, 0.1, 0.4), strict=True)))
    assert found["all"]["mass"] == pytest.approx(0.4)


def test_objects_are_those_of_the_scenes_less_the_hidden_ones():
    every, present = localise.objects(WORLDS["shapes"], [3, 4], 0)
    assert [LABELS[k] for k in every.label] == [*scene_labels("test", 3), *scene_labels("test", 4)]
    assert present.sum(1).tolist() == [len(scene_labels("test", k)) for k in (3, 4)]
    areas = sorted(every.masks.sum((1, 2)).tolist())
    fewer, again = localise.objects(WORLDS["shapes"], [3, 4], areas[3])
    assert sorted(fewer.masks.sum((1, 2)).tolist()) == [area for area in areas if area >= areas[3]] != areas
    assert torch.equal(again, present)


@pytest.mark.parametrize("images", ["0", "2001"])
def test_only_scenes_that_exist_can_be_measured(called, run, images):
    code, out, err = called(run, "--images", images)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert images in err


def test_a_run_on_other_labels_is_refused_in_one_line(called, finished, tmp_path):
    code, out, err = called(finished.run, "--out", tmp_path / "x.json")
    assert (code, out, err.count("\n"), list(tmp_path.iterdir())) == (2, "", 1, [])
    assert "not trained on shapes or emoji" in err


def test_runs_of_two_worlds_are_refused(monkeypatch):
    seen = {"a": WORLDS["shapes"].labels[:9], "b": WORLDS["emoji"].labels[:9]}
    monkeypatch.setattr(localise, "read_parts", lambda place: SimpleNamespace(seen=seen[place.name]))
    assert localise.checked([Path("b")])[1].name == "emoji"
    with pytest.raises(localise.LocaliseError, match="b is a run of emoji, a one of shapes"):
        localise.checked([Path("a"), Path("b")])


def test_every_row_is_measured(called, run, tmp_path):
    called(run, "--images", "2", "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["mean"]
    assert [*found] == ["the object on the grid", *ROWS]
    assert set(found["plan, KCOT"]["unseen"]) == {*METRICS, "contrast"}
    assert len(SEEN) == 48


def test_the_tables_of_the_docs_are_those_of_the_result_file():
    content = json.loads((ROOT / "docs/results/shapes/localisation.json").read_text())
    assert [about["config"]["SOLVER.SEED"] for about in content["about"]] == [1, 2, 3]
    page = (ROOT / "docs/localisation.md").read_text()
    for group in ("seen", "unseen"):
        assert localise.table(content["mean"], content["standard deviation"], group) in page
