"""RAM with peaks: its branch by the formula, and through training and test."""

import json

import pytest
import torch
from scipy.special import logsumexp, softmax

from configs import load_config
from engine.run import newest_run
from loss import mmc_loss
from model import METHODS, PeakRAM, build_method, load_towers

NAMES = ("cat", "dog", "kite")
TARGETS = torch.tensor([[1, 0, 1], [0, 1, 0]])


def build(*overrides):
    torch.manual_seed(3)
    cfg = load_config("configs/tiny.yml", ["MODEL.METHOD", "ram-peaks", "MODEL.TEMPERATURE", "auto", *overrides])
    return build_method(cfg, load_towers(cfg), seen=3).eval()


@pytest.fixture(scope="module")
def ram():
    return build()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("sharpness", "temperature"), [(30.0, 0.1), (5.0, 0.5), (1000.0, 0.1)])
def test_the_branch_is_the_soft_maximum_over_regions(sharpness, temperature):
    cosines = torch.rand(2, 16, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model = build("MODEL.PEAKS.SHARPNESS", str(sharpness), "MODEL.PEAKS.TEMPERATURE", str(temperature))
    expected = logsumexp(sharpness * cosines.double().numpy(), axis=1) / sharpness / temperature
    torch.testing.assert_close(model.peak_logits(cosines).double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_scores_are_the_mean_of_three_softmaxes(ram, images):
    found = ram(images, ram.encode_labels(NAMES))
    three = (found.local_logits, found.global_logits, ram.peak_logits(found.similarity))
    expected = sum(softmax(logits.detach().double().numpy(), axis=-1) for logits in three) / 3
    torch.testing.assert_close(found.scores.double(), torch.from_numpy(expected), rtol=0, atol=1e-6)


def test_in_steps_the_scores_are_the_same_to_the_bit(ram, images):
    labels = ram.encode_labels(NAMES)
    assert torch.equal(ram.recognise(ram.features(ram.stem(images)), labels).scores, ram(images, labels).scores)


def test_the_other_branches_are_those_of_ram(ram, images):
    cfg = load_config("configs/tiny.yml", ["MODEL.TEMPERATURE", "auto"])
    plain = METHODS["ram"](cfg, load_towers(cfg), seen=3).eval()
    plain.load_trained_state(ram.trained_state())
    ours, theirs = (model(images, model.encode_labels(NAMES), TARGETS) for model in (ram, plain))
    assert torch.equal(ours.local_logits, theirs.local_logits)
    assert torch.equal(ours.global_logits, theirs.global_logits)
    common = {name: ram.losses(ours, TARGETS)[name] for name in ("local", "global")}
    assert common == plain.losses(theirs, TARGETS)


def test_the_loss_of_the_branch_is_weighted_like_the_others(images):
    model = build("MODEL.LOSS_WEIGHT", "0.5")
    found = model(images, model.encode_labels(NAMES), TARGETS)
    expected = 0.5 * mmc_loss(model.peak_logits(found.similarity), TARGETS)
    torch.testing.assert_close(model.losses(found, TARGETS)["peak"], expected)


def test_gradients_reach_the_regions_through_the_branch(ram, images):
    found = ram(images, ram.encode_labels(NAMES), TARGETS)
    found.similarity.retain_grad()
    ram.losses(found, TARGETS)["peak"].backward()
    gradient = found.similarity.grad
    assert (gradient != 0).all()
    closest = found.similarity.argmax(1)  # (B, C)
    assert torch.equal(gradient.abs().argmax(1), closest)


def test_it_is_trained_and_tested(benchmark, train_script, test_script):
    cfg = benchmark.config("MODEL.METHOD", "ram-peaks", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["kind"] == "train")
    parts = ("loss_local", "loss_global", "loss_peak")
    assert line["loss"] == pytest.approx(sum(line[part] for part in parts))
    test_script.test(cfg)
    rows = json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]
    assert list(rows) == ["zero-shot CLIP", "RAM with peaks", "RAM with peaks (EMA)"]


def test_the_table_of_methods_knows_it(ram):
    assert isinstance(ram, PeakRAM)
