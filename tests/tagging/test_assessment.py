"""Published scores and probabilities side by side."""

import json
import math

import pytest
import torch

from datasets import build_splits, build_test
from engine import cli
from engine.checkpoint import load_checkpoint
from engine.metrics import measure
from engine.state import load_state, save_state
from tagging import Tagger
from tagging.assessment import assess
from tagging.calibration import reliability
from tools import calibrate


@pytest.fixture(scope="module")
def assessed(finished):
    tagger = Tagger.load(finished.run)
    cfg = finished.config()
    protocols = list(build_test(cfg, "test", build_splits(cfg)).protocols.values())
    return tagger, protocols, {(row.score, row.protocol): row for row in assess(tagger, protocols)}


def test_there_is_a_row_for_each_score_and_protocol(assessed):
    assert set(assessed[2]) == {(s, p) for s in ("published", "probability") for p in ("ZSL", "GZSL")}


def test_the_numbers_are_those_of_the_taggers_own_answers(assessed):
    tagger, (zsl, _), rows = assessed
    images = torch.cat([batch.images for batch in zsl.loader])
    targets = torch.cat([batch.targets for batch in zsl.loader])
    asked = tagger.labels(zsl.labels)
    p = tagger.ask(tagger.evidence.gallery(images), asked).probabilities
    row = rows["probability", "ZSL"]
    plain = measure(p.numpy(), targets.numpy()).summary
    assert (row.f1, row.precision) == pytest.approx((plain["F1@3"], plain["mAP"]))
    assert row.ece_unseen == pytest.approx(reliability(p, targets).ece, abs=1e-6)
    assert math.isnan(row.ece_seen)
    passes = p >= torch.tensor(tagger.thresholds(zsl.labels))
    hits = (passes & targets.bool()).sum()
    assert row.overall_f1 == pytest.approx(float(200 * hits / (passes.sum() + targets.sum())), abs=1e-3)


def test_published_scores_are_the_methods_and_have_no_thresholds(assessed):
    tagger, (_, gzsl), rows = assessed
    images = torch.cat([batch.images for batch in gzsl.loader])
    targets = torch.cat([batch.targets for batch in gzsl.loader])
    own = tagger.method(images, tagger.method.encode_labels(gzsl.labels)).scores
    row = rows["published", "GZSL"]
    assert row.precision == pytest.approx(measure(own.numpy(), targets.numpy()).summary["mAP"])
    assert math.isnan(row.overall_f1)
    seen = [gzsl.labels.index(name) for name in tagger.seen]
    assert row.ece_seen == pytest.approx(reliability(own[:, seen], targets[:, seen]).ece, abs=1e-6)


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["calibrate.py", *map(str, arguments)])
    return cli.run(calibrate.main)


def test_the_tool_fits_again_and_writes_checkpoint_and_diagram(trained, monkeypatch, capsys):
    path = trained.run / "checkpoint.pth"
    before = load_state(path)
    save_state(path, before._replace(calibration=None))
    assert call(monkeypatch, trained.run) == 0
    after = load_state(path)
    assert torch.equal(after.calibration["weight"], before.calibration["weight"])
    assert load_checkpoint(path)["step"] == before.step
    assert (trained.run / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert "ECE" in capsys.readouterr().out


def test_the_tool_compares_on_test_images(trained, monkeypatch, capsys):
    assert call(monkeypatch, trained.run, "--test") == 0
    assert "probability  GZSL" in capsys.readouterr().out
    content = json.loads((trained.run / "calibration-test.json").read_text())
    assert [row["score"] for row in content["results"]] == ["published"] * 2 + ["probability"] * 2
    assert content["results"][0]["overall_f1"] is None
    assert content["about"]["lists"]["GZSL"]["images"] == 7


def test_what_cannot_be_calibrated_is_one_line(trained, monkeypatch, capsys):
    assert call(monkeypatch, trained.run, "DATASETS.VAL", "") == 2
    assert "there are no validation images to calibrate on: set DATASETS.VAL" in capsys.readouterr().err
    path = trained.run / "checkpoint.pth"
    save_state(path, load_state(path)._replace(calibration=None))
    assert call(monkeypatch, trained.run, "--test") == 2
    assert "has no calibration to test" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["val", ""])
def test_a_training_without_validation_images_gives_no_probabilities(benchmark, train_script, split):
    keys = () if split else ("DATASETS.VAL", "")
    train_script.train(benchmark.config(*keys, "SOLVER.MAX_EPOCHS", "1"), None)
    (run,) = benchmark.runs.iterdir()
    assert (load_state(run / "checkpoint.pth").calibration is not None) == bool(split)


def test_a_training_whose_labels_calibrate_nothing_goes_on_and_says_so(benchmark, train_script, capsys):
    text = (benchmark.data / "val.json").read_text()
    content = json.loads(text)
    content["images"] = [[image, ["sun"]] for image, _ in content["images"]]
    (benchmark.data / "val.json").write_text(json.dumps(content))
    train_script.train(benchmark.config("SOLVER.MAX_EPOCHS", "1"), None)
    assert "no probabilities: too few labels are present in the validation images" in capsys.readouterr().out


def test_a_run_that_goes_on_is_calibrated_anew(trained, train_script):
    before = load_state(trained.run / "checkpoint.pth").calibration
    train_script.train(trained.config("SOLVER.MAX_EPOCHS", "3"), str(trained.run))
    after = load_state(trained.run / "checkpoint.pth").calibration
    assert not torch.equal(after["weight"], before["weight"])


def test_only_some_of_very_many_images_are_fitted_on(trained, monkeypatch):
    monkeypatch.setattr("tagging.build.LARGEST", 15)  # pairs; 4 labels
    assert call(monkeypatch, trained.run) == 0
    assert load_state(trained.run / "checkpoint.pth").calibration["images"] == 4
