"""The contract: what a method and a matcher from outside this package need, and what is given to them."""

import json
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from clip.load import load_clip
from configs import load_config
from engine.run import newest_run
from engine.state import load_state
from model import MATCHERS, METHODS, Group, Method, ModelError, ZeroShotCLIP, build_method
from model.matchers import Matching


class Scores(NamedTuple):
    scores: Tensor


class Prototypes(Method):
    """A method of three lines: one learnable direction for each character of a label's name."""

    title = "prototypes"
    frozen = ("visual",)

    def __init__(self, visual, width):
        super().__init__()
        self.visual, self.table = visual, nn.Parameter(0.1 * torch.randn(128, width))
        self.norm = nn.BatchNorm1d(width)

    def encode_labels(self, names):
        return torch.stack([self.table[[ord(letter) % 128 for letter in name]].mean(0) for name in names])

    def forward(self, images, labels, targets=None):  # noqa: ARG002
        return Scores(self.norm(self.visual(images)) @ labels.T)

    def losses(self, output, targets):
        return {"bce": nn.functional.binary_cross_entropy_with_logits(output.scores, targets)}

    def groups(self):
        return [Group("table", [self.table, *self.norm.parameters()], "sgd", 0.1, 0.0, 0.9)]

    def diagnostics(self, output):
        return {"highest": output.scores.detach().max()}


class Greedy(nn.Module):
    """Every label looks at its best region only."""

    needs_teacher = False

    def forward(self, similarity, assignment=None, targets=None):  # noqa: ARG002
        best = similarity == similarity.amax(1, keepdim=True)
        return Matching(
            best / (best.sum(1, keepdim=True) * similarity.shape[2]), diagnostics={"found": best.sum((1, 2))}
        )


def results_of(run):
    """The newest results of a run's test images."""
    return json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]


def logged(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_method_from_outside_is_trained_tested_and_resumed(monkeypatch, benchmark, train_script, test_script):
    def build(cfg, towers, *, seen, texts):  # noqa: ARG001
        return Prototypes(towers.visual, towers.visual.proj.shape[1])

    monkeypatch.setitem(METHODS, "prototypes", build)
    cfg = benchmark.config("MODEL.METHOD", "prototypes", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    line = next(line for line in logged(run) if line["kind"] == "train")
    assert {"loss", "loss_bce", "highest", "lr_table"} <= line.keys()
    state = load_state(run / "checkpoint.pth")
    assert state.method == "prototypes"
    assert {name.split(".")[0] for name in state.model} == {"table", "norm"}
    test_script.test(cfg)
    rows = results_of(run)
    assert list(rows) == ["zero-shot CLIP", "prototypes", "prototypes (EMA)"]
    train_script.train(cfg, str(run))  # nothing is left to do, and everything is found again
    assert torch.equal(load_state(run / "checkpoint.pth").model["table"], state.model["table"])


def test_a_matcher_from_outside_is_trained_and_tested(monkeypatch, benchmark, train_script, test_script):
    monkeypatch.setitem(MATCHERS, "greedy", lambda cfg, scale: Greedy())  # noqa: ARG005
    cfg = benchmark.config("MODEL.MATCHER", "greedy", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    line = next(line for line in logged(run) if line["kind"] == "train")
    assert line["found"] >= 4  # a region for each of the labels
    test_script.test(cfg)
    assert list(results_of(run)) == ["zero-shot CLIP", "RAM", "RAM (EMA)"]


def test_zero_shot_clip_is_tested_without_a_checkpoint(benchmark, test_script):
    test_script.test(benchmark.config("MODEL.METHOD", "zero-shot"))
    assert list(results_of(benchmark.runs / "zero-shot")) == ["zero-shot CLIP"]


def test_training_zero_shot_clip_is_a_clear_error(benchmark, train_script):
    with pytest.raises(ModelError, match=r"MODEL\.METHOD zero-shot has nothing to train: test it with test\.py"):
        train_script.train(benchmark.config("MODEL.METHOD", "zero-shot"), None)
    assert not benchmark.runs.exists()


@pytest.fixture(scope="module")
def zero_shot():
    cfg = load_config("configs/tiny.yml", ["MODEL.METHOD", "zero-shot"])
    return build_method(cfg, load_clip("ViT-tiny-8", "random"))


def test_a_method_without_anything_to_train_says_so(zero_shot):
    assert isinstance(zero_shot, ZeroShotCLIP)
    assert (zero_shot.groups(), zero_shot.trained_state(), zero_shot.diagnostics(None)) == ([], {}, {})
    with pytest.raises(ModelError, match="zero-shot CLIP has nothing to train"):
        zero_shot.losses(None, torch.zeros(1, 1))


def test_frozen_submodules_stay_in_evaluation_mode():
    method = Prototypes(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), 4).train()
    assert method.training
    assert method.norm.training
    assert not method.visual.training
    assert not method.visual[1].training
    assert not method.eval().norm.training


def test_a_trained_state_goes_back_whole_or_not_at_all():
    first, second = (Prototypes(nn.Flatten(), 4) for _ in range(2))
    second.load_trained_state(first.trained_state())
    assert torch.equal(first.table, second.table)
    broken = {**first.trained_state(), "table": torch.zeros(3, 3), "norm.weight": torch.zeros(4)}
    with pytest.raises(ModelError, match=r"table is \(128, 4\) in this model and \(3, 3\) in the checkpoint"):
        second.load_trained_state(broken)
    assert torch.equal(second.norm.weight, torch.ones(4))
