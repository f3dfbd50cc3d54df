"""train.py and test.py in two processes do what they do in one, and survive the loss of one of them."""

import json
import os
import signal
from functools import partial

import pytest
import torch

import engine.train
import parallel
from engine.state import load_state
from engine.train import Trainer
from tests.processes import launched


def lines(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def trains(train_script, config, resume=None):
    """What a process of a training does."""

    def work(_):
        with parallel.joined():
            train_script.train(config, resume)

    return work


@pytest.fixture(scope="module")
def in_two(train_script, finished, tmp_path_factory):
    """The run folder of two processes that train what `finished` was trained on."""
    runs = tmp_path_factory.mktemp("runs")
    launched(2, trains(train_script, finished.config("OUTPUT_DIR", str(runs))))
    (run,) = runs.iterdir()
    return run


def assert_alike(run, other):
    ours, theirs = (load_state(folder / "checkpoint.pth") for folder in (run, other))
    assert (ours.epoch, ours.step, ours.seen) == (theirs.epoch, theirs.step, theirs.seen)
    for name, value in theirs.model.items():
        torch.testing.assert_close(ours.model[name], value, rtol=1e-4, atol=1e-4)
    for name, value in theirs.ema.items():
        torch.testing.assert_close(ours.ema[name], value, rtol=1e-4, atol=1e-4)


def test_two_processes_write_the_checkpoint_of_one(in_two, finished):
    assert_alike(in_two, finished.run)


def test_two_processes_train_from_what_is_kept_of_images_as_one_does(train_script, benchmark, tmp_path):
    kept = partial(benchmark.config, "INPUT.AUGMENT", "False", "DATALOADER.CACHE", "True", "SOLVER.EVAL_PERIOD", "2")
    launched(2, trains(train_script, kept("OUTPUT_DIR", str(tmp_path / "two"))))
    train_script.train(kept("OUTPUT_DIR", str(tmp_path / "one")), None)
    (two,), (one,) = ((tmp_path / count).iterdir() for count in ("two", "one"))
    assert_alike(two, one)


def test_two_processes_write_one_log_with_the_values_of_both(in_two, finished):
    ours, theirs = lines(in_two), lines(finished.run)
    assert [line["kind"] for line in ours] == [line["kind"] for line in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for key in {"loss", "solver_iterations", "lr_adapters"} & other.keys():
            assert mine[key] == pytest.approx(other[key], rel=1e-4)


def test_two_processes_measure_what_one_does(in_two, finished):
    ours, theirs = (
        json.loads((run / "val" / "epoch-2" / "results.json").read_text()) for run in (in_two, finished.run)
    )
    assert ours["results"] == theirs["results"]


def test_the_environment_says_how_many_there_were(in_two, finished):
    assert [json.loads((run / "environment.json").read_text())["processes"] for run in (in_two, finished.run)] == [2, 1]


def test_two_processes_score_images_as_one_does_to_the_bit(test_script, trained):
    config = trained.config("TEST.SAVE_SCORES", "True", "TEST.IMS_PER_BATCH", "3")

    def work(_):
        with parallel.joined():
            test_script.test(config)

    launched(2, work)
    test_script.test(config)
    ours, alone = sorted((trained.run / "test").iterdir())
    names = sorted(path.name for path in alone.iterdir() if path.suffix == ".npz")
    assert names
    assert all((ours / name).read_bytes() == (alone / name).read_bytes() for name in names)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(before, after, train_script, finished, tmp_path):
    config = partial(finished.config, "OUTPUT_DIR", str(tmp_path), "SOLVER.CHECKPOINT_PERIOD", "1")
    launched(before, trains(train_script, config("SOLVER.MAX_EPOCHS", "1", "SOLVER.SCHEDULER_MAX_EPOCHS", "2")))
    launched(after, trains(train_script, config("SOLVER.SCHEDULER_MAX_EPOCHS", "2"), "auto"))
    (run,) = tmp_path.iterdir()
    assert_alike(run, finished.run)


def killed_at(step, rank, how, monkeypatch):
    """Lets one process of a training do something behind a step."""
    train_step = Trainer._train_step

    def signalled(self, *args):
        loss = train_step(self, *args)
        if self.step == step and os.environ.get("RANK") == str(rank):
            os.kill(os.getpid(), how)
        return loss

    monkeypatch.setattr(Trainer, "_train_step", signalled)


def test_a_process_that_dies_ends_all_and_leaves_a_run_to_go_on_with(train_script, finished, tmp_path, monkeypatch):
    config = finished.config("OUTPUT_DIR", str(tmp_path), "SOLVER.CHECKPOINT_PERIOD", "1")
    with monkeypatch.context() as patch:
        killed_at(4, 1, signal.SIGKILL, patch)
        first, dead = launched(2, trains(train_script, config), errors=True)
    assert dead is None
    assert isinstance(first, parallel.LostProcessError)
    launched(2, trains(train_script, config, "auto"))
    (run,) = tmp_path.iterdir()
    assert_alike(run, finished.run)


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_process_saves_and_ends_all(rank, train_script, finished, tmp_path, monkeypatch):
    config = finished.config("OUTPUT_DIR", str(tmp_path))
    with monkeypatch.context() as patch:
        killed_at(2, rank, signal.SIGTERM, patch)
        ended = launched(2, trains(train_script, config), errors=True)
    assert [type(error).__name__ for error in ended] == ["Terminated"] * 2
    (run,) = tmp_path.iterdir()
    assert load_state(run / "checkpoint.pth").step == 2
    launched(2, trains(train_script, config, "auto"))
    assert_alike(run, finished.run)


def in_save(train_script, monkeypatch):
    """SIGUSR1 to the first process while it writes its second checkpoint."""
    original, count = train_script.Run.save, iter(range(100))

    def save(run, path):
        if os.environ.get("RANK") == "0" and next(count) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        original(run, path)

    monkeypatch.setattr(train_script.Run, "save", save)


def behind_the_last_step(_, monkeypatch):
    """SIGUSR1 to the second process between the last step of an epoch and its end."""
    original = engine.train.warn_of_broken_images

    def warned(*args):
        original(*args)
        if os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(engine.train, "warn_of_broken_images", warned)


@pytest.mark.parametrize("signalled", [in_save, behind_the_last_step])
def test_sigusr1_to_one_process_saves_in_step_whenever_it_comes(
    signalled, train_script, finished, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        signalled(train_script, patch)
        launched(2, trains(train_script, finished.config("OUTPUT_DIR", str(tmp_path), "SOLVER.CHECKPOINT_PERIOD", "1")))
    (run,) = tmp_path.iterdir()
    assert_alike(run, finished.run)


def test_a_loss_that_is_not_finite_names_the_images_of_all(train_script, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(train_script.RAM, "losses", lambda _, output, __: {"local": output.scores.sum() * torch.nan})
    errors = launched(2, trains(train_script, finished.config("OUTPUT_DIR", str(tmp_path))), errors=True)
    assert str(errors[0]).count("images/train") == 2  # of one batch, one in each process


def test_more_processes_than_images_of_a_batch_are_refused(train_script, finished, tmp_path):
    config = finished.config("OUTPUT_DIR", str(tmp_path))
    errors = launched(3, trains(train_script, config), errors=True)
    assert "SOLVER.IMS_PER_BATCH is 2, which leaves some of 3 processes without an image" in str(errors[0])
    assert not list(tmp_path.iterdir())
