"""What signals do to a whole training: save and end, or save and go on; nothing is lost."""

import os
import signal

import pytest

from engine.signals import Terminated
from engine.state import load_state
from trainings import differing, logged, only_run

pytestmark = pytest.mark.usefixtures("own_random_state")


def signalled(monkeypatch, train_script, step, number):
    """The training gets a signal in the midst of a step."""
    original = train_script.Trainer._train_step

    def with_signal(trainer, *args):
        if trainer.step + 1 == step:
            os.kill(os.getpid(), number)
        return original(trainer, *args)

    monkeypatch.setattr(train_script.Trainer, "_train_step", with_signal)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_sigterm_saves_the_step_under_way_and_ends(benchmark, finished, train_script, monkeypatch, step):
    with monkeypatch.context() as patch:
        signalled(patch, train_script, step, signal.SIGTERM)
        with pytest.raises(Terminated):
            train_script.train(benchmark.config(), None)
    assert load_state(only_run(benchmark) / "checkpoint.pth").step == step
    assert not (only_run(benchmark) / ".lock").exists()
    train_script.train(benchmark.config(), "auto")
    assert differing(only_run(benchmark), finished.run) == []
    ours, theirs = (
        [(line["kind"], line["step"]) for line in logged(run)] for run in (only_run(benchmark), finished.run)
    )
    assert ours == theirs
    times = [line["time"] for line in logged(only_run(benchmark))]
    assert times == sorted(times)


def test_sigterm_in_an_evaluation_ends_and_loses_nothing(benchmark, finished, train_script, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train_script, "evaluate", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Terminated):
            train_script.train(benchmark.config(), None)
    train_script.train(benchmark.config(), "auto")
    assert differing(only_run(benchmark), finished.run) == []


def test_sigterm_while_an_epoch_is_saved_waits_for_that(benchmark, finished, train_script, monkeypatch):
    original = train_script.save_state

    def with_signal(path, state):
        os.kill(os.getpid(), signal.SIGTERM)
        original(path, state)

    with monkeypatch.context() as patch:
        patch.setattr(train_script, "save_state", with_signal)
        with pytest.raises(Terminated):
            train_script.train(benchmark.config("SOLVER.EVAL_PERIOD", "2"), None)
    assert load_state(only_run(benchmark) / "checkpoint.pth").epoch == 2
    train_script.train(benchmark.config("SOLVER.EVAL_PERIOD", "2"), "auto")
    assert "model" not in differing(only_run(benchmark), finished.run)


def test_sigusr1_saves_and_goes_on(benchmark, finished, train_script, monkeypatch):
    saved, original = [], train_script.Run.save
    signalled(monkeypatch, train_script, 2, signal.SIGUSR1)
    monkeypatch.setattr(train_script.Run, "save", lambda run, path: (saved.append(run.step), original(run, path)))
    train_script.train(benchmark.config(), None)
    assert saved[0] == 2
    assert differing(only_run(benchmark), finished.run) == []
