"""Trainings that were killed go on to the bit; others are not resumed, and say why."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from configs import ConfigError
from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from engine.claim import ClaimError
from engine.state import load_state
from tools import pack_images
from trainings import differing, files, only_run, results

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.usefixtures("own_random_state")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the project catches it."""


def killed_at(monkeypatch, owner, name, number):
    """The method raises when it has been called `number` times."""
    original, calls = getattr(owner, name), []

    def counted(*args, **kwargs):
        found = original(*args, **kwargs)
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return found

    monkeypatch.setattr(owner, name, counted)


def train_until_killed(train_script, cfg, monkeypatch, owner, name, number):
    with monkeypatch.context() as patch:
        killed_at(patch, owner, name, number)
        with pytest.raises(Killed):
            train_script.train(cfg, None)


@pytest.mark.parametrize(
    "saves", [1, 4, 5, 7], ids=["in mid-epoch", "before an evaluation", "between epochs", "in the second epoch"]
)
def test_a_run_killed_after_a_checkpoint_goes_on_to_the_bit(benchmark, finished, train_script, monkeypatch, saves):
    cfg = benchmark.config("SOLVER.CHECKPOINT_PERIOD", "1")
    train_until_killed(train_script, cfg, monkeypatch, train_script.Run, "save", saves)
    train_script.train(cfg, "auto")
    assert differing(only_run(benchmark), finished.run) == []
    assert results(only_run(benchmark) / "val" / "epoch-2") == results(finished.run / "val" / "epoch-2")


def test_a_killed_run_goes_on_to_the_bit_from_a_pack_where_the_device_augments(
    benchmark, train_script, monkeypatch, tmp_path
):
    overrides = ("DATALOADER.AUGMENT_ON", "device", "SOLVER.CHECKPOINT_PERIOD", "1")
    train_script.train(benchmark.config(*overrides, "OUTPUT_DIR", str(tmp_path / "through")), None)
    train_until_killed(train_script, benchmark.config(*overrides), monkeypatch, train_script.Run, "save", 4)
    assert pack_images.pack_all(benchmark.config(*pack_images.READING), tmp_path / "pack", None) == 0
    pack = ("DATASETS.PACK", str(tmp_path / "pack"), "DATALOADER.NUM_WORKERS", "1")
    train_script.train(benchmark.config(*overrides, *pack), "auto")
    (through,) = (tmp_path / "through").iterdir()
    assert differing(only_run(benchmark), through) == []


def test_a_killed_run_goes_on_to_the_bit_from_what_is_kept_of_images(benchmark, train_script, monkeypatch, tmp_path):
    overrides = ("INPUT.AUGMENT", "False", "DATALOADER.CACHE", "True", "SOLVER.CHECKPOINT_PERIOD", "1")
    train_script.train(benchmark.config(*overrides, "OUTPUT_DIR", str(tmp_path / "through")), None)
    train_until_killed(train_script, benchmark.config(*overrides), monkeypatch, train_script.Run, "save", 5)
    train_script.train(benchmark.config(*overrides), "auto")
    (through,) = (tmp_path / "through").iterdir()
    assert differing(only_run(benchmark), through) == []


def test_a_run_may_go_on_from_what_is_kept_of_images(benchmark, train_script):
    plain = ("INPUT.AUGMENT", "False")
    train_script.train(benchmark.config(*plain, "SOLVER.MAX_EPOCHS", "1"), None)
    train_script.train(benchmark.config(*plain, "DATALOADER.CACHE", "True"), "auto")
    assert load_state(only_run(benchmark) / "checkpoint.pth").epoch == 3


@pytest.mark.parametrize("steps", [3, 5])
def test_a_run_killed_between_checkpoints_goes_on_to_the_bit(benchmark, finished, train_script, monkeypatch, steps):
    cfg = benchmark.config("SOLVER.CHECKPOINT_PERIOD", "2")
    train_until_killed(train_script, cfg, monkeypatch, train_script.Trainer, "_train_step", steps)
    train_script.train(cfg, str(only_run(benchmark)))
    assert differing(only_run(benchmark), finished.run) == []


def test_a_killed_run_goes_on_to_the_bit_in_mid_cycle(benchmark, train_script, monkeypatch, tmp_path):
    cycle = ("SOLVER.SCHEDULE", "one-cycle", "SOLVER.LR_PERIOD", "step", "SOLVER.WARMUP_EPOCHS", "1",
             "SOLVER.SCHEDULER_MAX_EPOCHS", "auto", "SOLVER.CHECKPOINT_PERIOD", "1")  # fmt: skip
    train_script.train(benchmark.config(*cycle, "OUTPUT_DIR", str(tmp_path / "through")), None)
    train_until_killed(train_script, benchmark.config(*cycle), monkeypatch, train_script.Run, "save", 4)
    train_script.train(benchmark.config(*cycle), "auto")
    (through,) = (tmp_path / "through").iterdir()
    assert differing(only_run(benchmark), through) == []
    groups = load_state(through / "checkpoint.pth").optimizers["adamw"]["param_groups"]
    assert [group["betas"][0] for group in groups] == pytest.approx([0.95, 0.95])  # they came back at the end


@pytest.mark.slow
def test_a_run_that_the_system_kills_goes_on_to_the_bit(benchmark, finished, train_script, forked):
    overrides = [*benchmark.overrides, "SOLVER.CHECKPOINT_PERIOD", "1"]
    process = forked(ROOT / "train.py", "--config_file", ROOT / "configs" / "tiny.yml", *overrides)
    try:
        while process.poll() is None and not list(benchmark.runs.glob("*/checkpoint.pth")):
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    train_script.train(benchmark.config("SOLVER.CHECKPOINT_PERIOD", "1"), "auto")
    differences = differing(only_run(benchmark), finished.run)
    assert set(differences) <= {"random"}  # Python's and NumPy's generators, unused, start differently in each process


@pytest.mark.parametrize(("field", "value"), [("random", {}), ("optimizers", {"adamw": {}})])
def test_a_checkpoint_with_nothing_to_go_on_with_is_one_line(trained, train_script, field, value):
    content = load_checkpoint(trained.run / "checkpoint.pth")
    save_checkpoint(trained.run / "checkpoint.pth", {**content, field: value})
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth holds no optimisers or random state to go on with"):
        train_script.train(trained.config("SOLVER.MAX_EPOCHS", "3"), "auto")


@pytest.mark.parametrize("text", ["x: [", "3", "MODEL: {OT_REG: -1.0}"])
def test_a_checkpoint_with_a_broken_configuration_is_one_line(trained, train_script, text):
    content = load_checkpoint(trained.run / "checkpoint.pth")
    save_checkpoint(trained.run / "checkpoint.pth", {**content, "config": text})
    with pytest.raises(ConfigError, match="^the configuration in the checkpoint: "):
        train_script.train(trained.config(), "auto")


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(trained, train_script, capsys):
    lost = trained.runs / "20990101-000000"
    lost.mkdir()
    (lost / "config.yml").write_text("")
    train_script.train(trained.config(), "auto")
    assert f"{lost} ended before its first checkpoint: a new run begins" in capsys.readouterr().out
    assert len(list(trained.runs.iterdir())) == 3


def test_a_run_that_is_under_way_is_not_resumed(trained, train_script):
    program = (
        "import sys, time; from pathlib import Path; from engine.claim import claimed; c = claimed(Path(sys.argv[1]))"
    )
    line = [sys.executable, "-c", f"{program}; c.__enter__(); print('held', flush=True); time.sleep(60)", trained.run]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        before = files(trained.run)
        with pytest.raises(ClaimError, match="another process is at work"):
            train_script.train(trained.config(), "auto")
        assert files(trained.run) == before
        process.kill()


def test_resuming_where_there_is_no_run_starts_one(benchmark, finished, train_script):
    train_script.train(benchmark.config(), "auto")
    assert differing(only_run(benchmark), finished.run) == []


def test_resuming_a_finished_run_changes_nothing_and_says_so(trained, train_script, capsys):
    before = files(trained.run)
    train_script.train(trained.config(), "auto")
    assert files(trained.run) == before
    assert only_run(trained) == trained.run
    assert f"{trained.run} is done: 2 epochs are trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.BASE_LR", "1e-3"),
        ("SOLVER.MOMENTUM", "0.8"),
        ("MODEL.OT_REG", "0.2"),
        ("MODEL.OT_SOLVER", "pot"),
        ("INPUT.PROB", "0.1"),
        ("DATALOADER.AUGMENT_ON", "device"),
    ],
)
def test_resuming_with_another_recipe_is_refused(trained, train_script, command, capsys, key, value):
    before = files(trained.runs)
    assert command(train_script, trained, key, value, options=["--resume", "auto"]) == 2
    assert f"was trained with {key} " in capsys.readouterr().err
    assert files(trained.runs) == before


@pytest.mark.parametrize(("key", "value"), [("DATALOADER.NUM_WORKERS", "1"), ("TEST.IMS_PER_BATCH", "3")])
def test_resuming_on_another_machine_is_the_same_run(benchmark, finished, train_script, monkeypatch, key, value):
    with monkeypatch.context() as patch:
        killed_at(patch, train_script.Run, "save", 1)
        with pytest.raises(Killed):
            train_script.train(benchmark.config(), None)
    train_script.train(benchmark.config(key, value), "auto")
    assert "model" not in differing(only_run(benchmark), finished.run)


def test_the_solver_is_a_matter_of_the_machine_that_resumes(trained, train_script, capsys):
    train_script.train(trained.config("MODEL.OT_SOLVER", "native"), "auto")
    assert f"{trained.run} is done" in capsys.readouterr().out


def test_a_finished_run_goes_on_where_it_is_given_more_epochs(trained, finished, train_script):
    train_script.train(trained.config("SOLVER.MAX_EPOCHS", "3"), str(trained.run))
    state = load_state(trained.run / "checkpoint.pth")
    assert (state.epoch, state.step) == (4, 9)
    assert not torch.equal(
        state.model["local_temperature"], load_state(finished.run / "checkpoint.pth").model["local_temperature"]
    )
