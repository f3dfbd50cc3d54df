"""The model on a GPU, at every precision that is offered there, and training steps that do not wait for it."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from configs import load_config
from datasets.batched import BatchedAugmentation
from datasets.plan import Plan
from datasets.transforms import training_steps
from engine.ema import Ema
from engine.fetch import fetched
from engine.optim import optimizers
from engine.train import Trainer
from loss import mmc_loss
from model import build_method, load_towers
from model.kcot import KCOT
from model.method import Group
from model.ot_solver import sinkhorn
from model.ot_triton import FusedKCOT
from model.precision import store_in, stored_in

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = ("red circle", "blue star", "green ring")
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 1]])


def step(device, dtype=None, stored=None):
    """Scores, and the loss after forward and backward, of a fixed tiny model; frozen weights may be stored in half."""
    cfg = load_config("configs/tiny.yml")
    towers = load_towers(cfg)
    torch.manual_seed(0)
    model = build_method(cfg, towers).to(device)
    store_in(stored, model)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    scaler = torch.amp.GradScaler(device, enabled=dtype == torch.float16)
    with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
        found = model(images, model.encode_labels(NAMES), TARGETS.to(device))
    loss = mmc_loss(found.local_logits, TARGETS.to(device)) + mmc_loss(found.global_logits, TARGETS.to(device))
    scaler.scale(loss).backward()
    gradients = [p.grad for group in model.groups() for p in group.parameters]
    assert all(torch.isfinite(g).all() for g in gradients)
    return found.scores.detach().cpu(), loss.item()


def test_float32_on_the_gpu_equals_the_cpu():
    (gpu, gpu_loss), (cpu, cpu_loss) = step("cuda"), step("cpu")
    torch.testing.assert_close(gpu, cpu, rtol=2e-3, atol=1e-4)
    assert gpu_loss == pytest.approx(cpu_loss, rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_stays_near_float32(dtype):
    (mixed, _), (full, _) = step("cuda", dtype), step("cuda")
    torch.testing.assert_close(mixed, full, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frozen_weights_stored_in_half_precision_are_what_autocast_makes_of_them(dtype):
    cfg = load_config("configs/tiny.yml")
    torch.manual_seed(0)
    model = build_method(cfg, load_towers(cfg)).to("cuda").eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to("cuda")
    labels = model.encode_labels(NAMES)

    def scores():
        with torch.no_grad(), torch.autocast("cuda", dtype=dtype):
            return model(images, labels).scores

    expected = scores()
    with stored_in(dtype, model):
        assert model.trunk.visual.conv1.weight.dtype == dtype
        torch.testing.assert_close(scores(), expected)
    torch.testing.assert_close(scores(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_step_with_stored_weights_has_finite_gradients_and_scores_near_float32(dtype):
    (mixed, _), (full, _) = step("cuda", dtype, stored=dtype), step("cuda")
    torch.testing.assert_close(mixed, full, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_plans_on_the_gpu_equal_those_of_the_cpu(reg):
    cost = torch.rand(4, 49, 9, generator=torch.Generator().manual_seed(0))
    mu, nu = torch.full((4, 49), 1 / 49), torch.full((4, 9), 1 / 9)
    gpu = sinkhorn(*(t.to("cuda") for t in (cost, mu, nu)), reg=reg)
    cpu = sinkhorn(cost, mu, nu, reg=reg)
    torch.testing.assert_close(gpu.plan.cpu(), cpu.plan, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("labels", [9, 48, 925])
@pytest.mark.parametrize("teaching", [False, True])
def test_the_fused_kernel_gives_the_plans_of_the_cpu(labels, teaching):
    generator = torch.Generator().manual_seed(0)
    similarity = 0.2 + 0.05 * torch.rand(5, 196, labels, generator=generator)
    assignment = (20 * torch.rand(5, 196, labels, generator=generator)).softmax(1)
    inputs = (similarity, *((assignment, torch.rand(5, labels, generator=generator) < 0.1) if teaching else ()))
    parts = {"scale": 100.0, "reg": 0.1, "reg_teacher": 0.05, "presence_temperature": 0.1}
    gpu = FusedKCOT(**parts, max_iter=20, tol=None)(*(t.to("cuda") for t in inputs))
    cpu = KCOT(**parts, solve=partial(sinkhorn, max_iter=20, tol=None))(*inputs)
    torch.testing.assert_close(gpu.plan.cpu(), cpu.plan, rtol=1e-3, atol=1e-8)
    torch.testing.assert_close(gpu.mu.cpu(), cpu.mu)


def scores(path, device):
    """Of a compared method at its start, in evaluation, and a training step where there is something to train."""
    cfg = load_config(["configs/tiny.yml", path], ["MODEL.COMC.SENTENCES", "8"])
    towers = load_towers(cfg)
    torch.manual_seed(0)
    method = build_method(cfg, towers, seen=len(NAMES), labels=NAMES).to(device)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    if method.groups():
        targets = TARGETS.to(device)
        losses = method.train().losses(method(images, method.encode_labels(NAMES), targets), targets)
        torch.stack(list(losses.values())).sum().backward()
    with torch.no_grad():
        return method.eval()(images, method.encode_labels(NAMES)).scores.cpu()


@pytest.mark.parametrize("path", sorted(Path("configs/methods").glob("*.yml")), ids=lambda path: path.name)
def test_a_compared_method_scores_alike_on_the_gpu_and_the_cpu(path):
    torch.testing.assert_close(scores(path, "cuda"), scores(path, "cpu"), rtol=2e-3, atol=2e-3)


class Linear(nn.Module):
    """The smallest method with an optimiser of every kind and running statistics."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(12, 8, generator=generator))
        self.second = nn.Parameter(torch.randn(8, 3, generator=generator))
        self.norm = nn.BatchNorm1d(8)

    def encode_labels(self, names):
        return len(names)

    def forward(self, images, _, __=None):
        return self.norm(images.flatten(1) @ self.first) @ self.second

    def losses(self, output, targets):
        return {"only": nn.functional.binary_cross_entropy_with_logits(output, targets)}

    def diagnostics(self, output):
        return {"size": output.detach().abs().mean()}

    def trained_state(self):
        return self.state_dict()

    def groups(self):
        return [
            Group("first", [self.first], "adamw", 1e-2, 1e-2),
            Group("second", [self.second], "sgd", 1e-1, 0.0, 0.9),
            Group("norm", list(self.norm.parameters()), "adam", 1e-2, 1e-2),
        ]


def linear_trainer(device, precision=None):
    model = Linear().to(device)
    return Trainer(
        model=model, names=NAMES, optimizers=optimizers(model.groups()), set_rates=lambda _: None, rates_per_step=False,
        ema=Ema(model.trained_state(), decay=0.5), device=torch.device(device), autocast=precision,
        scaler=torch.amp.GradScaler(device, enabled=precision == torch.float16), log=lambda **_: None, log_period=100,
        skip_nonfinite=True, progress_bar=False,
    )  # fmt: skip


def linear_batches(count, bad=()):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 16, 3, 2, 2, generator=generator)
    targets = (images.flatten(2)[..., :3] > 0).float()
    images[list(bad)] *= math.nan
    return [SimpleNamespace(images=i, targets=t, paths=["a.jpg"]) for i, t in zip(images, targets, strict=True)]


def test_a_number_arrives_before_what_was_queued_behind_it():
    read = fetched(torch.full((), 3.0, device="cuda", requires_grad=True))
    torch.cuda._sleep(2_000_000_000)  # cycles, about a second
    assert read() == 3
    assert not torch.cuda.current_stream().query()
    torch.cuda.synchronize()


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("precision", [None, torch.float16, torch.bfloat16])
def test_steps_wait_for_nothing_also_where_one_is_left_out(precision):
    trainer = linear_trainer("cuda", precision)
    trainer.epoch(1, linear_batches(2))  # allocates
    parts = linear_batches(4, bad=[2])
    torch.cuda._sleep(2_000_000_000)  # cycles, about a second
    torch.cuda.set_sync_debug_mode("error")  # of all waits but those for an event
    try:
        for batch in parts:
            trainer._train_step(batch, 2)
        assert not torch.cuda.current_stream().query()  # nor for an event
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.settle()
    assert (trainer.step, trainer._watch.skipped) == (6, 1)


def trained(device, bad=()):
    trainer = linear_trainer(device)
    trainer.epoch(1, linear_batches(6, bad))
    return {**trainer.model.trained_state(), **{f"ema.{name}": t for name, t in trainer.ema.state_dict().items()}}


@pytest.mark.filterwarnings("ignore:left out", "ignore:epoch 1 left out")
@pytest.mark.parametrize("bad", [(), (0,), (3,)])
def test_fused_steps_are_those_of_the_cpu_also_where_one_is_left_out(bad):
    found, expected = trained("cuda", bad), trained("cpu", bad)
    assert all(o.defaults["fused"] for o in linear_trainer("cuda").optimizers.by_kind.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].cpu(), tensor, rtol=1e-3, atol=1e-4)


def augmented(device, noise):
    """A batch of smooth pictures after every other change, strong."""
    augment = BatchedAugmentation(training_steps(
        size=(40, 48), flip=0.5, erase=noise, padding=5, aug_prob=0.6, crop=0.2, blur=2.0, contrast=(0.6, 1.3),
        affine=0.2, rotation=30.0, noise=0.1 * noise, multiply=(0.7, 1.2), per_channel=0.5, mean=(0, 0, 0),
        std=(1 / 255,) * 3,
    ))  # fmt: skip
    grids = torch.randint(256, (16, 3, 5, 6), generator=torch.Generator().manual_seed(0)).float()
    images = nn.functional.interpolate(grids, (40, 48), mode="bilinear").to(torch.uint8).to(device)
    torch.manual_seed(0)
    plan = Plan.of([augment.draw((64, 48)) for _ in images], (48, 40))
    torch.cuda.set_sync_debug_mode("error")
    try:
        return augment(images, plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_batch_is_augmented_on_the_gpu_as_on_the_cpu():
    difference = (augmented("cuda", 0.0).cpu() - augmented("cpu", 0.0)).abs()
    assert (difference < 1.5).float().mean() > 0.999


def test_noise_of_the_gpu_depends_on_the_seeds_alone():
    assert torch.equal(augmented("cuda", 1.0), augmented("cuda", 1.0))
