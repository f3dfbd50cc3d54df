"""Runs, checkpoints and exported folders."""

import json

import pytest
import torch

from engine.checkpoint import CheckpointError
from engine.state import load_state
from tagging import Tagger, TaggerError
from tagging.build import portable
from tagging.portable import checkpoint_of, read_parts, write_parts


def test_parts_come_back_from_a_folder(parts, tmp_path):
    write_parts(tmp_path / "a" / "b", portable(parts))
    again = read_parts(tmp_path / "a" / "b")
    assert again.state.keys() == parts.state.keys()
    assert all(torch.equal(again.state[name], parts.state[name]) for name in parts.state)
    assert (again.seen, again.unseen, again.texts, again.clip) == (parts.seen, parts.unseen, parts.texts, parts.clip)
    assert again.calibration["labels"] == parts.calibration["labels"]
    assert torch.equal(again.calibration["hits"], parts.calibration["hits"])


def test_a_folder_holds_no_paths_of_this_machine(parts, config, tmp_path):
    cfg = config(
        "OUTPUT_DIR", "/home/me/runs", "DATASETS.ROOT_DIR", "/home/me/data", "MODEL.CLIP_WEIGHTS", "/home/me/w.pt"
    )
    write_parts(tmp_path, portable(parts._replace(config=cfg.dump())))
    assert "/home/me" not in (tmp_path / "config.json").read_text()
    assert json.loads((tmp_path / "config.json").read_text())["configuration"]["MODEL"]["CLIP_WEIGHTS"] == "w.pt"


def test_without_a_calibration_a_folder_has_none(parts, tmp_path):
    write_parts(tmp_path, portable(parts._replace(calibration=None)))
    assert read_parts(tmp_path).calibration is None


def test_a_run_a_folder_of_runs_and_a_checkpoint_name_the_same(finished):
    path = finished.run / "checkpoint.pth"
    assert checkpoint_of(finished.run) == checkpoint_of(finished.runs) == checkpoint_of(path) == path


def test_the_best_checkpoint_goes_before_the_last(trained):
    (trained.run / "best.pth").write_bytes((trained.run / "checkpoint.pth").read_bytes())
    assert checkpoint_of(trained.run) == trained.run / "best.pth"


def test_averaged_weights_are_taken_where_there_are_any(finished):
    state = load_state(finished.run / "checkpoint.pth")
    averaged, raw = (read_parts(finished.run, averaged=flag).state for flag in (True, False))
    assert read_parts(finished.run, averaged=False).calibration is None  # fitted on the average
    assert all(torch.equal(averaged[name], state.ema[name]) for name in state.ema)
    assert all(torch.equal(raw[name], state.model[name]) for name in state.model)


def test_a_finished_training_with_validation_images_gives_probabilities(finished):
    tagger = Tagger.load(finished.run)
    assert tagger.calibrated
    assert tagger.calibration.labels == tagger.seen == ("cat", "cup", "dog", "tree")
    assert tagger.calibration.images == 7
    assert len(tagger.tag(finished.data / "images" / "test0.png").labels) == 4


def test_where_nothing_is_it_is_said(tmp_path):
    with pytest.raises(TaggerError, match="holds no run, checkpoint or exported tagger"):
        Tagger.load(tmp_path)
    with pytest.raises(TaggerError, match="holds no run"):
        Tagger.load(tmp_path / "nowhere")
    (tmp_path / "a.pth").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        Tagger.load(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "config.json").write_text("{"),
        lambda f: (f / "config.json").write_text("[]"),
        lambda f: (f / "config.json").write_text('{"format": "open-vocabulary tagger", "version": 1}'),
        lambda f: (f / "model.safetensors").write_bytes(b"\x01" * 100),
        lambda f: (f / "model.safetensors").unlink(),
    ],
    ids=["json", "list", "keys", "tensors", "missing"],
)
def test_a_broken_folder_is_one_line(parts, tmp_path, spoil):
    write_parts(tmp_path, portable(parts))
    spoil(tmp_path)
    with pytest.raises(TaggerError, match="is no exported tagger, or a broken one"):
        Tagger.load(tmp_path)


def test_a_folder_of_another_version_is_refused(parts, tmp_path):
    write_parts(tmp_path, portable(parts))
    content = (tmp_path / "config.json").read_text().replace('"version": 1', '"version": 9')
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(TaggerError, match=r"no tagger of this version \(1\)"):
        Tagger.load(tmp_path)


def test_a_template_with_any_character_comes_back(parts, config, tmp_path):
    parts = parts._replace(config=config("MODEL.TEMPLATE", "A photo \U0001f600 of a {}.").dump())
    write_parts(tmp_path, portable(parts))
    assert Tagger.load(tmp_path).template == "A photo \U0001f600 of a {}."


@pytest.mark.parametrize(
    ("key", "value"),
    [("seen", [1, 2]), ("seen", "abc"), ("seen", ["a", "a"]), ("texts", {"a": 1}), ("clip", None),
     ("configuration", None), ("configuration", {})],
)  # fmt: skip
def test_values_of_other_types_are_refused(parts, tmp_path, key, value):
    write_parts(tmp_path, portable(parts))
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(TaggerError, match="is no exported tagger, or a broken one"):
        Tagger.load(tmp_path)
