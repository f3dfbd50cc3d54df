"""Whole trainings and tests by train.py and test.py, on a few small images."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip.load import TextError
from configs import ConfigError, load_config, restore_config
from datasets.records import DataError
from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint, set_random_state
from engine.checkpoint import random_state as current_random_state
from engine.claim import ClaimError
from engine.metrics import Metrics
from engine.results import Result, read_scores
from engine.run import newest_run
from engine.signals import Terminated
from engine.state import load_state
from model import build_method, load_towers
from tools.chaos import same

ROOT = Path(__file__).parent.parent
RATES = json.loads((ROOT / "tests" / "data" / "release_schedule.json").read_text())
RESULTS = {"results.json", "results.csv", "per_class.csv", "log.jsonl"}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the project catches it."""


@pytest.fixture(autouse=True)
def _own_random_state():
    state = current_random_state()
    yield
    set_random_state(state)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differing(run, reference):
    """Parts of the last checkpoints that differ, but for the configuration, where paths do."""
    ours, theirs = load_checkpoint(run / "checkpoint.pth"), load_checkpoint(reference / "checkpoint.pth")
    return [key for key in ours.keys() | theirs.keys() if key != "config" and not same(ours[key], theirs[key])]


def results(folder):
    return json.loads((folder / "results.json").read_text())["results"]


def newest(run, split="test"):
    """The folder of the newest test of a run."""
    return newest_run(run / split, "results.json")


def only_run(benchmark):
    (folder,) = benchmark.runs.iterdir()
    return folder


def test_a_run_folder_holds_exactly_what_is_promised(finished):
    evaluations = {f"val/epoch-{epoch}/{name}" for epoch in (1, 2) for name in RESULTS - {"log.jsonl"}}
    assert files(finished.run).keys() == {"config.yml", "environment.json", "log.jsonl", "checkpoint.pth"} | evaluations


def test_the_configuration_of_a_run_can_be_loaded_and_is_that_of_the_run(finished):
    assert load_config(finished.run / "config.yml") == finished.config()


def test_the_log_has_every_step_and_every_evaluation(finished):
    lines = [json.loads(line) for line in (finished.run / "log.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert [(line["epoch"], line["step"]) for line in trained] == [(1, 2), (1, 3), (2, 5), (2, 6)]
    evaluated = [line for line in lines if line["kind"] == "val"]
    assert [line["epoch"] for line in evaluated] == [1] * 6 + [2] * 6
    expected = results(finished.run / "val" / "epoch-2")["RAM (EMA)"]["GZSL"]["F1@3"]
    assert expected in [line.get("RAM (EMA)/GZSL/F1@3") for line in evaluated]


def test_a_checkpoint_says_where_the_training_stands(finished):
    state = load_state(finished.run / "checkpoint.pth")
    assert (state.method, state.epoch, state.batch, state.step) == ("ram", 3, 0, 6)
    assert state.seen == ["cat", "cup", "dog", "tree"]
    assert state.unseen == ["car", "kite", "sun"]


def test_the_schedule_of_the_configuration_is_that_of_the_release(train_script, benchmark):
    keys = {key: load_config().SOLVER[key] for key in (
        "BASE_LR", "BASE_LR_SGD", "ADAPTER_FACTOR", "WARMUP_LR", "MIN_LR", "WARMUP_EPOCHS", "SCHEDULER_MAX_EPOCHS",
        "LR_PERIOD",
    )}  # fmt: skip
    overrides = [part for key, value in keys.items() for part in (f"SOLVER.{key}", str(value))]
    train_script.train(benchmark.config(*overrides, "SOLVER.MAX_EPOCHS", "5", "SOLVER.EVAL_PERIOD", "5"), None)
    lines = [json.loads(line) for line in (only_run(benchmark) / "log.jsonl").read_text().splitlines()]
    rates = {
        line["epoch"]: [line[f"lr_{name}"] for name in RATES["groups"]] for line in lines if line["kind"] == "train"
    }
    for epoch, expected in enumerate(RATES["coco"][:5], start=1):
        assert rates[epoch] == pytest.approx(expected, rel=1e-9, abs=0)


def test_a_checkpoint_alone_rebuilds_the_model(finished, train_script):
    state = load_state(finished.run / "checkpoint.pth")
    cfg = restore_config(state.config)
    model = build_method(cfg, load_towers(cfg), seen=len(state.seen), texts=state.texts)
    model.load_trained_state(state.model)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    run = train_script.Run(finished.config())
    run.restore(finished.run / "checkpoint.pth")
    found, expected = (m.eval()(images, m.encode_labels(["cat", "sun"])).scores for m in (model, run.model))
    assert torch.equal(found, expected)


def test_a_checkpoint_holds_no_frozen_weights_and_is_small(finished):
    state = load_state(finished.run / "checkpoint.pth")
    assert not [name for name in state.model if name.startswith(("trunk.", "text."))]
    assert state.ema.keys() == state.model.keys()
    trained = sum(tensor.numel() for tensor in state.model.values())
    assert (finished.run / "checkpoint.pth").stat().st_size < 4 * 4 * trained + 200_000  # AdamW holds two, EMA one


def test_a_checkpoint_is_read_by_torch_without_running_code(finished):
    torch.load(finished.run / "checkpoint.pth", weights_only=True)


def test_everything_trained_has_moved(finished, train_script):
    torch.manual_seed(finished.config().SOLVER.SEED)
    before = train_script.Run(finished.config()).model.trained_state()
    after = load_checkpoint(finished.run / "checkpoint.pth")["model"]
    assert [name for name in after if torch.equal(after[name], before[name])] == []


def test_the_same_seed_gives_the_same_run(benchmark, finished, train_script):
    train_script.train(benchmark.config(), None)
    assert differing(only_run(benchmark), finished.run) == []


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
def test_a_run_that_the_system_kills_goes_on_to_the_bit(benchmark, finished, train_script):
    overrides = [*benchmark.overrides, "SOLVER.CHECKPOINT_PERIOD", "1"]
    line = [sys.executable, ROOT / "train.py", "--config_file", ROOT / "configs" / "tiny.yml", *overrides]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=os.environ | threads)  # fmt: skip
    try:
        while process.poll() is None and not list(benchmark.runs.glob("*/checkpoint.pth")):
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() in (-signal.SIGKILL, 0)
    train_script.train(benchmark.config("SOLVER.CHECKPOINT_PERIOD", "1"), "auto")
    differences = differing(only_run(benchmark), finished.run)
    assert set(differences) <= {"random"}  # Python's and NumPy's generators, unused, start differently in each process


def signalled(monkeypatch, train_script, step, number):
    """The training gets a signal in the midst of a step."""
    original = train_script.Trainer._train_step

    def with_signal(trainer, *args):
        if trainer.step + 1 == step:
            os.kill(os.getpid(), number)
        return original(trainer, *args)

    monkeypatch.setattr(train_script.Trainer, "_train_step", with_signal)


def logged(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


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


def test_sigusr1_saves_and_goes_on(benchmark, finished, train_script, monkeypatch):
    saved, original = [], train_script.Run.save
    signalled(monkeypatch, train_script, 2, signal.SIGUSR1)
    monkeypatch.setattr(train_script.Run, "save", lambda run, path: (saved.append(run.step), original(run, path)))
    train_script.train(benchmark.config(), None)
    assert saved[0] == 2
    assert differing(only_run(benchmark), finished.run) == []


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
    [("SOLVER.BASE_LR", "1e-3"), ("SOLVER.MOMENTUM", "0.8"), ("MODEL.OT_REG", "0.2"), ("INPUT.PROB", "0.1")],
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


@pytest.mark.slow
def test_weights_and_biases_works_without_a_network_or_an_account(benchmark, finished, train_script, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(benchmark.runs / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_script.train(benchmark.config("WANDB", "True"), None)
    (panel,) = only_run(benchmark).glob("wandb/offline-run-*/files/media/images/val/labels-and-where_*.png")
    with Image.open(panel) as image:
        assert image.width > 200
    assert differing(only_run(benchmark), finished.run) == []


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


def test_a_cosine_and_an_average_fit_the_training_by_themselves(benchmark, train_script):
    cfg = benchmark.config(
        "SOLVER.SCHEDULER_MAX_EPOCHS", "auto", "SOLVER.WARMUP_EPOCHS", "0", "SOLVER.MIN_LR", "1e-9",
        "SOLVER.LR_PERIOD", "step", "MODEL.EMA_DECAY", "auto", "SOLVER.MAX_EPOCHS", "7", "SOLVER.EVAL_PERIOD", "7",
        "MODEL.EMA_RESET", "false",
    )  # fmt: skip
    run = train_script.Run(cfg)
    assert run.ema._decay == pytest.approx(1 - 10 / 21)
    train_script.train(cfg, None)
    lines = [json.loads(line) for line in (only_run(benchmark) / "log.jsonl").read_text().splitlines()]
    rates = [line["lr_prompts"] for line in lines if line["kind"] == "train"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-9)


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


def test_the_newest_run_is_tested(trained, test_script, capsys):
    test_script.test(trained.config())
    assert set(files(newest(trained.run))) == RESULTS
    out = capsys.readouterr().out
    assert f"results: {newest(trained.run)}" in out
    assert "few, test images" in out


def test_a_finished_run_goes_on_where_it_is_given_more_epochs(trained, finished, train_script):
    train_script.train(trained.config("SOLVER.MAX_EPOCHS", "3"), str(trained.run))
    state = load_state(trained.run / "checkpoint.pth")
    assert (state.epoch, state.step) == (4, 9)
    assert not torch.equal(
        state.model["local_temperature"], load_state(finished.run / "checkpoint.pth").model["local_temperature"]
    )


@pytest.mark.parametrize("name", ["", "checkpoint.pth"])
def test_a_training_begins_with_the_weights_of_another(finished, benchmark, train_script, monkeypatch, name):
    before = load_state(finished.run / "checkpoint.pth").model
    monkeypatch.setattr(train_script.Run, "train", lambda *_: None)
    runs = []
    begin = train_script.Run.begin_with
    monkeypatch.setattr(train_script.Run, "begin_with", lambda self, place: (begin(self, place), runs.append(self)))
    train_script.train(benchmark.config("SOLVER.INIT", str(finished.run / name), "SOLVER.BASE_LR", "1e-4"), None)
    (run,) = runs
    assert all(torch.equal(value, before[key]) for key, value in run.model.trained_state().items())
    assert all(torch.equal(value, before[key]) for key, value in run.ema.state_dict().items())
    assert (run.epoch, run.step) == (1, 0)


@pytest.mark.parametrize(("labels", "protocols"), [("dog|sun", {"ZSL", "GZSL"}), ("cat|dog", {"GZSL"})])
@pytest.mark.filterwarnings("ignore:the training images are not", "ignore:MODEL")
def test_a_checkpoint_is_tested_on_any_labels_without_its_training_list(
    trained, test_script, tmp_path, labels, protocols
):
    (tmp_path / "mine.csv").write_text(f"image,labels\nimages/test0.png,{labels}\nimages/test1.jpg,dog\n")
    keys = ("DATASETS.TRAIN", "gone.json", "DATASETS.VAL", "", "DATASETS.TEST", str(tmp_path / "mine.csv"))
    test_script.test(trained.config(*keys))
    found = results(newest(trained.run))["RAM"]
    assert found.keys() == protocols
    assert found["GZSL"]["classes"] == 2


def test_no_test_overwrites_another(trained, test_script):
    for _ in range(2):
        test_script.test(trained.config())
    folders = list((trained.run / "test").iterdir())
    assert [set(files(folder)) for folder in folders] == [RESULTS, RESULTS]


def test_results_say_where_they_come_from(trained, test_script, finished):
    test_script.test(trained.config("DATALOADER.NUM_WORKERS", "0"))
    about = json.loads((newest(trained.run) / "results.json").read_text())["about"]
    checkpoint = (trained.run / "checkpoint.pth").read_bytes()
    assert about["checkpoint"] == {
        "run": trained.run.name, "file": "checkpoint.pth", "sha256": hashlib.sha256(checkpoint).hexdigest(),
        "method": "ram", "epoch": 3, "batch": 0, "step": 6,
    }  # fmt: skip
    assert about["labels"] == {"seen": 4, "unseen": 3}
    assert {name: (it["images"], it["labels"]) for name, it in about["lists"].items()} == {
        "ZSL": (4, 3),
        "GZSL": (7, 7),
    }
    assert len({it["fingerprint"] for it in about["lists"].values()}) == 2
    assert about["config"]["SOLVER.IMS_PER_BATCH"] == 2
    assert about["environment"]["torch"] == importlib.metadata.version("torch")
    assert time.strptime(about["date"], "%Y-%m-%dT%H:%M:%S%z")
    before = json.loads((finished.run / "val" / "epoch-2" / "results.json").read_text())["about"]
    assert before["checkpoint"] == {"run": trained.run.name, "epoch": 2, "step": 6}


def test_a_checkpoint_can_be_named(trained, test_script):
    (trained.run / "checkpoint.pth").rename(trained.runs / "mine.pth")
    test_script.test(trained.config("TEST.WEIGHT", str(trained.runs / "mine.pth")))
    assert set(files(newest(trained.runs))) == RESULTS


def test_validation_gives_again_what_the_training_found(trained, test_script):
    expected = results(trained.run / "val" / "epoch-2")
    test_script.test(trained.config("TEST.SPLIT", "val"))
    assert results(newest(trained.run, "val")) == expected


def test_there_is_a_row_for_each_method_and_protocol(finished):
    found = results(finished.run / "val" / "epoch-2")
    assert {name: set(row) for name, row in found.items()} == {
        name: {"ZSL", "GZSL"} for name in ("zero-shot CLIP", "RAM", "RAM (EMA)")
    }


def test_without_an_average_there_is_no_row_of_it(benchmark, train_script, test_script):
    cfg = benchmark.config("MODEL.USE_EMA", "False", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    test_script.test(cfg)
    assert results(newest(only_run(benchmark))).keys() == {"zero-shot CLIP", "RAM"}
    assert load_checkpoint(only_run(benchmark) / "checkpoint.pth")["ema"] is None


def test_only_what_is_asked_for_is_evaluated(benchmark, train_script, test_script):
    cfg = benchmark.config("SOLVER.MAX_EPOCHS", "1", "TEST.PROTOCOLS", "ZSL")
    train_script.train(cfg, None)
    test_script.test(cfg)
    for folder in (only_run(benchmark) / "val" / "epoch-1", newest(only_run(benchmark))):
        assert {protocol for row in results(folder).values() for protocol in row} == {"ZSL"}


@pytest.mark.filterwarnings("ignore:CLIP's positional embeddings are interpolated")
def test_a_matcher_that_cannot_answer_all_labels_is_tested_on_those_it_can(benchmark, train_script, test_script):
    regions = ("INPUT.SIZE_TRAIN", "(16, 16)", "INPUT.SIZE_TEST", "(16, 16)")  # four, for 4 seen and 3 unseen labels
    cfg = benchmark.config("MODEL.MATCHER", "bipartite", "SOLVER.MAX_EPOCHS", "1", "TEST.PROTOCOLS", "ZSL", *regions)
    train_script.train(cfg, None)
    test_script.test(cfg)
    assert results(newest(only_run(benchmark)))["RAM (EMA)"].keys() == {"ZSL"}


def test_protocols_that_there_are_not_are_refused(trained, test_script):
    with pytest.raises(DataError, match=r"TEST\.PROTOCOLS names 'ZLS'; there are ZSL, GZSL"):
        test_script.test(trained.config("TEST.PROTOCOLS", "ZLS"))


def test_what_is_chosen_by_all_labels_needs_them_evaluated(benchmark, train_script):
    with pytest.raises(ConfigError, match="go by GZSL, which TEST.PROTOCOLS leaves out"):
        train_script.train(benchmark.config("SOLVER.SELECT", "best", "TEST.PROTOCOLS", "ZSL"), None)


def test_saved_scores_give_exactly_the_numbers_of_the_results(trained, test_script):
    test_script.test(trained.config("TEST.SAVE_SCORES", "True"))
    spec = importlib.util.spec_from_file_location("evaluate_scores_script", ROOT / "tools" / "evaluate_scores.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found, folder = results(newest(trained.run)), newest(trained.run)
    names = {"zero-shot CLIP": "zero-shot-CLIP", "RAM": "RAM", "RAM (EMA)": "RAM-EMA"}
    expected = {f"scores-{file}-{protocol}.npz" for file in names.values() for protocol in ("ZSL", "GZSL")}
    assert files(folder).keys() == RESULTS | expected
    for method, file in names.items():
        for protocol in ("ZSL", "GZSL"):
            metrics = tool.evaluate(str(folder / f"scores-{file}-{protocol}.npz"), None).metrics
            assert metrics.counts | metrics.summary == found[method][protocol]


def test_raw_and_averaged_weights_score_differently(trained, test_script):
    test_script.test(trained.config("TEST.SAVE_SCORES", "True"))
    raw, averaged = (read_scores(newest(trained.run) / f"scores-{n}-GZSL.npz").scores for n in ("RAM", "RAM-EMA"))
    assert abs(raw - averaged).max() > 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [("MODEL.OT_REG", "0.2"), ("INPUT.PIXEL_MEAN", "(0.4, 0.5, 0.5)"), ("MODEL.CONTEXT.COUNT", "7")],
)
def test_a_test_with_another_model_warns_of_it(trained, test_script, key, value):
    with pytest.warns(UserWarning, match=f"^{key} was .* in training and is "):
        test_script.test(trained.config(key, value))


def test_weights_of_another_model_are_refused_to_begin_with(finished, benchmark, train_script):
    with pytest.raises(CheckpointError, match=r"SOLVER\.INIT .*checkpoint\.pth is of another model: .* is "):
        train_script.train(benchmark.config("SOLVER.INIT", str(finished.run), "MODEL.TEXT_CTX", "1"), None)
    assert not benchmark.runs.exists()


def test_an_unseen_label_that_cannot_be_encoded_is_refused_before_the_training(benchmark, train_script, tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps({"kite": {"prompt": "one " * 72}}))
    with pytest.raises(TextError, match="the label 'kite' is too long to stand behind a context of"):
        train_script.train(
            benchmark.config("MODEL.METHOD", "coop", "DATASETS.LABELS", str(tmp_path / "labels.json")), None
        )
    assert not benchmark.runs.exists()
