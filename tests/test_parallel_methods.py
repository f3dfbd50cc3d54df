"""Every method trains in several processes as it does in one."""

import pytest
import torch
import torch.distributed as dist

import parallel
from configs import load_config
from engine.optim import optimizers
from engine.train import SeparateLossError, Trainer
from model import build_method, load_towers
from model.compared import biam
from tests.conftest import ROOT
from tests.processes import launched, random, share_of

CPU = torch.device("cpu")
LABELS = ("cat", "red cup", "dog", "tree", "old car")
METHODS = {
    "ram": [], "ram-asl": ["MODEL.LOSS_TYPE", "ASL"], "ram-release": ["MODEL.OT_STOP", "batch"],
    "ram-dualcoop": ["MODEL.LABEL_PROMPTING", "dualcoop"], "coop": ["MODEL.METHOD", "coop"],
    "dualcoop": ["MODEL.METHOD", "dualcoop"], "dualcoop-partial": ["MODEL.METHOD", "dualcoop-partial"],
    "ml-decoder": ["MODEL.METHOD", "ml-decoder", "MODEL.ML_DECODER.DROPOUT", "0.0", "MODEL.ML_DECODER.HIDDEN", "64"],
    "mkt-1": ["MODEL.METHOD", "mkt"], "mkt-2": ["MODEL.METHOD", "mkt", "MODEL.MKT.STAGE", "2"],
    "biam": ["MODEL.METHOD", "biam", "SOLVER.BASE_LR", "1e-4"],
    "comc": ["MODEL.METHOD", "comc", "MODEL.COMC.SENTENCES", "20"],
    "trm-ml": ["MODEL.METHOD", "trm-ml", "MODEL.TRM.DROPOUT", "0.0", "MODEL.TRM.HIDDEN", "64"],
}  # fmt: skip


def built(*overrides):
    cfg = load_config(ROOT / "configs" / "tiny.yml", [*overrides, "MODEL.MKT.BLOCKS", "1"])
    torch.manual_seed(0)
    method = build_method(cfg, load_towers(cfg), seen=len(LABELS), labels=LABELS)
    with torch.no_grad():
        for key, parameter in method.named_parameters():
            if "tail" in key:  # a copy of the teacher: what they differ by would be rounding alone
                parameter += 0.01 * torch.randn_like(parameter)
    return method


def steps(method, batches, rank=0, count=1):
    """Gradients of the first step, the losses of all in the first process, and what is trained after them."""
    first, losses = {}, []
    trainer = Trainer(
        model=method, names=LABELS, optimizers=optimizers(method.groups()), rates_per_step=False, ema=None,
        set_rates=lambda _: None, scaler=torch.amp.GradScaler("cpu", enabled=False), device=CPU, autocast=None,
        log=lambda **values: losses.append(values["loss"]), log_period=1, skip_nonfinite=False, progress_bar=False,
    )  # fmt: skip

    def after_step(done):
        if done == 1:
            first.update({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})

    torch.manual_seed(1)  # what methods draw in training
    trainer.epoch(1, [batch.share(rank, count) for batch in batches], after_step=after_step)
    return first, losses, {name: value.clone() for name, value in method.trained_state().items()}


class Batch:
    """Images of a step, or the share of a process."""

    known = None

    def __init__(self, images, targets):
        self.images, self.targets, self.paths = images, targets, [""] * len(images)

    def share(self, rank, count):
        return Batch(share_of(self.images, rank, count), share_of(self.targets, rank, count))


@pytest.mark.parametrize(("name", "count"), [*((name, 2) for name in METHODS), ("ram", 4)])
def test_a_method_trains_in_several_processes_as_in_one(name, count, monkeypatch):
    monkeypatch.setattr(biam, "DROPOUT", 0.0)
    monkeypatch.setattr(biam, "DROPOUT_GLOBAL", 0.0)
    batches = [
        Batch(random(8, 3, 32, 32, seed=step), (random(8, len(LABELS), seed=100 + step) > 0.3).float())
        for step in range(8 if name == "ram" else 3)
    ]
    grads, losses, trained = steps(built(*METHODS[name]), batches)

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            return steps(built(*METHODS[name]), batches, rank, count)

    for rank, (their_grads, their_losses, their_trained) in enumerate(launched(count, work)):
        assert grads.keys() == their_grads.keys()
        largest = max(grad.abs().max().item() for grad in grads.values())
        for key, grad in grads.items():
            rounding = 1e-5 * grad.abs().max().item() + 1e-7 * largest
            torch.testing.assert_close(their_grads[key], grad, rtol=1e-5, atol=rounding)
        if rank == 0:
            assert their_losses == pytest.approx(losses, rel=1e-4)
        for key in trained if name in ("ram", "ram-release") else ():  # Adam makes steps of what is rounding alone
            torch.testing.assert_close(their_trained[key], trained[key], rtol=1e-4, atol=1e-4)


def test_a_loss_of_ones_own_images_is_refused(monkeypatch):
    method = built()
    monkeypatch.setattr(type(method), "losses", lambda _, output, targets: {"own": (output.scores * targets).sum()})
    batch = Batch(random(8, 3, 32, 32), (random(8, len(LABELS), seed=1) > 0).float())

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            steps(method, [batch], rank, 2)

    first, _ = launched(2, work, errors=True)
    assert isinstance(first, SeparateLossError)
    assert "the processes have losses of their own" in str(first)


def test_a_step_exchanges_what_the_documentation_counts(monkeypatch):
    batch = Batch(random(8, 3, 32, 32), (random(8, len(LABELS), seed=1) > 0).float())
    reduced, sent = dist.all_reduce, []

    def counted(tensor, **how):
        sent.append(tensor.numel())
        return reduced(tensor, **how)

    monkeypatch.setattr(dist, "all_reduce", counted)

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            steps(built(), [batch], rank, 2)
            return sent

    norms, channels, branches = 4, 32, 2
    moments = norms * [1, channels, channels]
    losses = branches * [2, 1, 1]  # positives and their logits, the highest logit, the sum of the others
    backward = branches * [2, 1] + norms * [channels, channels]
    assert sorted(launched(2, work)[0]) == sorted([*moments, *losses, 1, *backward])
