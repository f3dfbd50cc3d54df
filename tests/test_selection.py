"""Which epoch of a training is kept, when it ends early, and how it compares with zero-shot CLIP."""

import pytest

from configs import ConfigError
from engine.checkpoint import load_checkpoint
from engine.metrics import Metrics
from engine.results import Result
from engine.state import load_state
from trainings import newest, only_run, results

pytestmark = pytest.mark.usefixtures("own_random_state")


def test_the_best_epoch_is_kept_and_is_what_is_tested(benchmark, train_script, test_script, monkeypatch):
    reached = iter([50.0, 40.0])
    monkeypatch.setattr(train_script, "find", lambda *_: {"mAP": next(reached)})
    cfg = benchmark.config("SOLVER.SELECT", "best")
    train_script.train(cfg, None)
    folder = only_run(benchmark)
    assert load_checkpoint(folder / "best.pth")["epoch"] == 1
    assert load_checkpoint(folder / "checkpoint.pth")["best"] == 50
    assert test_script.checkpoint_path(cfg) == folder / "best.pth"
    test_script.test(benchmark.config("SOLVER.SELECT", "best", "TEST.SPLIT", "val"))
    assert results(newest(folder, "val")) == results(folder / "val" / "epoch-1")


def without_progress(train_script, monkeypatch, values):
    """Lets the validation images see these values of F1@3 of RAM, epoch by epoch."""
    reached = iter(values)
    monkeypatch.setattr(train_script, "find", lambda *_: {"mAP": next(reached)})


def test_a_training_without_progress_ends_early_and_says_so(benchmark, train_script, monkeypatch, capsys):
    without_progress(train_script, monkeypatch, [40.0, 50.0, 45.0, 50.0])
    train_script.train(benchmark.config("SOLVER.MAX_EPOCHS", "9", "SOLVER.PATIENCE", "2"), None)
    state = load_state(only_run(benchmark) / "checkpoint.pth")
    assert (state.epoch, state.best, state.best_epoch) == (5, 50.0, 2)
    assert "ended early: validation mAP has not risen since epoch 2 (SOLVER.PATIENCE)" in capsys.readouterr().out


def test_a_training_that_ended_early_goes_on_only_with_more_patience(benchmark, train_script, monkeypatch):
    without_progress(train_script, monkeypatch, [50.0, 40.0, 45.0])
    patient = ("SOLVER.MAX_EPOCHS", "3", "SOLVER.PATIENCE")
    train_script.train(benchmark.config(*patient, "1"), None)
    run = only_run(benchmark)
    assert load_state(run / "checkpoint.pth").epoch == 3
    train_script.train(benchmark.config(*patient, "1"), str(run))
    assert load_state(run / "checkpoint.pth").epoch == 3
    train_script.train(benchmark.config(*patient, "2"), str(run))
    assert load_state(run / "checkpoint.pth").epoch == 4


def test_patience_counts_evaluated_epochs_only(benchmark, train_script, monkeypatch):
    without_progress(train_script, monkeypatch, [50.0, 40.0, 30.0])
    config = benchmark.config("SOLVER.MAX_EPOCHS", "9", "SOLVER.PATIENCE", "3", "SOLVER.EVAL_PERIOD", "2")
    train_script.train(config, None)
    state = load_state(only_run(benchmark) / "checkpoint.pth")
    assert (state.best_epoch, state.epoch) == (2, 7)  # evaluated after 2, 4 and 6


@pytest.mark.parametrize("setting", [("SELECT", "best"), ("PATIENCE", "2")])
def test_without_validation_images_nothing_can_be_chosen(benchmark, train_script, setting):
    key, value = setting
    with pytest.raises(ConfigError, match=f"SOLVER.{key} {value} needs validation images: set DATASETS.VAL or VAL_FR"):
        train_script.train(benchmark.config(f"SOLVER.{key}", value, "DATASETS.VAL", ""), None)


def test_where_too_few_images_are_there_for_validation_the_last_epoch_is_tested(
    benchmark, train_script, test_script, capsys
):
    cfg = benchmark.config("SOLVER.SELECT", "best", "SOLVER.PATIENCE", "1", "DATASETS.VAL", "",
                           "DATASETS.VAL_FRACTION", "auto")  # fmt: skip
    train_script.train(cfg, None)
    assert "6 images are too few to hold some out for validation" in capsys.readouterr().out
    assert load_state(only_run(benchmark) / "checkpoint.pth").best_epoch == 0
    assert test_script.checkpoint_path(cfg) == only_run(benchmark) / "checkpoint.pth"


@pytest.mark.parametrize(("reached", "said"), [(39.0, True), (40.0, False)])
def test_ending_below_zero_shot_clip_is_told_with_what_to_try(
    benchmark, train_script, test_script, monkeypatch, capsys, reached, said
):
    def evaluated(rows, *_, **__):
        f1 = {rows[0].name: 40.0, rows[-1].name: reached}
        return [Result(name, "GZSL", Metrics({"F1@3": f1[name], "mAP": f1[name]}, {}, {}), ()) for name in f1]

    for script in (train_script, test_script):
        monkeypatch.setattr(script, "evaluate", evaluated)
        monkeypatch.setattr(script, "write_results", lambda *_: None)
    train_script.train(benchmark.config(), None)
    line = "RAM (EMA) is below zero-shot CLIP: GZSL F1@3 39.0, not 40.0; GZSL mAP 39.0, not 40.0"
    assert (f"{line}; try more images or epochs" in capsys.readouterr().out) == said
    test_script.test(benchmark.config())
    assert (line in capsys.readouterr().out) == said


def test_what_is_chosen_by_all_labels_needs_them_evaluated(benchmark, train_script):
    with pytest.raises(ConfigError, match="go by GZSL, which TEST.PROTOCOLS leaves out"):
        train_script.train(benchmark.config("SOLVER.SELECT", "best", "TEST.PROTOCOLS", "ZSL"), None)
