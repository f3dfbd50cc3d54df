"""Whole trainings by train.py on a few small images: what they leave behind, and what they begin with."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from clip.load import TextError
from configs import load_config, restore_config
from engine.checkpoint import CheckpointError, load_checkpoint
from engine.state import load_state
from model import build_method, load_towers
from trainings import differing, files, logged, newest, only_run, results

ROOT = Path(__file__).parent.parent
TINY = ROOT / "configs" / "tiny.yml"
RATES = json.loads((ROOT / "tests" / "data" / "release_schedule.json").read_text())
RESULTS = {"results.json", "results.csv", "per_class.csv"}

pytestmark = pytest.mark.usefixtures("own_random_state")


def test_a_run_folder_holds_exactly_what_is_promised(finished):
    evaluations = {f"val/epoch-{epoch}/{name}" for epoch in (1, 2) for name in RESULTS}
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


@pytest.mark.parametrize("method", ["ram", "trm-ml", "dualcoop-partial"])
def test_a_training_from_what_is_kept_of_images_is_that_from_the_images(train_script, tmp_path, method):
    few = [
        "DATASETS.SUBSET", "14", "DATASETS.TRAIN", "shapes:all", "DATASETS.CHOOSE", "none", "DATASETS.KNOWN", "0.5",
        "SOLVER.IMS_PER_BATCH", "4", "INPUT.AUGMENT", "False", "MODEL.METHOD", method,
        "MODEL.TRM.HIDDEN", "64", "MODEL.TRM.PSEUDO_START", "1",
    ]  # fmt: skip
    folders = []
    for cached in ("False", "True"):
        where = tmp_path / cached
        train_script.train(load_config(TINY, [*few, "OUTPUT_DIR", str(where), "DATALOADER.CACHE", cached]), None)
        folders += where.iterdir()
    read, kept = (load_state(folder / "checkpoint.pth") for folder in folders)
    assert (kept.step, kept.epoch) == (6, 3)
    for name, value in read.model.items():
        torch.testing.assert_close(kept.model[name], value, rtol=1e-5, atol=1e-5)
    ours, theirs = ([line["loss"] for line in logged(folder) if "loss" in line] for folder in folders)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert len(theirs) == 4


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


def test_a_training_in_bf16_trains_and_is_evaluated_in_float32(benchmark, train_script, test_script, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    keys = ("SOLVER.AMP", "bf16", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(benchmark.config(*keys), None)
    run = only_run(benchmark)
    state = load_state(run / "checkpoint.pth")
    assert {tensor.dtype for tensor in state.model.values()} == {torch.float32, torch.int64}  # BatchNorm counts
    assert all(tensor.isfinite().all() for tensor in state.model.values())
    test_script.test(benchmark.config(*keys, "TEST.SPLIT", "val"))
    assert results(newest(run, "val")) == results(run / "val" / "epoch-1")


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


class Told:
    """Stands for the dashboard of Weights & Biases; every test has one class of its own."""

    logged: list

    def __init__(self, *_, **__):
        type(self).logged = []

    def log(self, kind, values):
        self.logged.append((kind, values))

    def table(self, name, heads, rows):  # noqa: ARG002
        self.logged.append((name, rows))

    def finish(self, *, failed):
        self.logged.append(("failed", failed))


def test_weights_and_biases_is_told_of_the_losses_of_trm_ml_and_of_its_pseudo_labels(
    benchmark, train_script, monkeypatch
):
    told = type("OfTRM", (Told,), {})
    monkeypatch.setattr("engine.log.Dashboard", told)
    keys = ["MODEL.METHOD", "trm-ml", "MODEL.TRM.HIDDEN", "64", "MODEL.USE_EMA", "False", "DATASETS.KNOWN", "0.5"]
    train_script.train(benchmark.config(*keys, "DATASETS.CHOOSE", "none", "WANDB", "True"), None)
    steps = [values for kind, values in told.logged if kind == "train"]
    parts = {"loss_queries", "loss_regions", "loss_distillation", "loss_contrast"}
    assert parts | {"pseudo_present", "pseudo_absent", "full_queues", "ordered_thresholds"} <= steps[0].keys()
    assert steps[0]["loss"] == pytest.approx(sum(steps[0][name] for name in parts), rel=1e-4)
    assert "val/TRM-ML/GZSL/AP of labels" in dict(told.logged)
    assert told.logged[-1] == ("failed", False)


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
