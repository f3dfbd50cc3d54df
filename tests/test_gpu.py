"""The model on a GPU, at every precision that is offered there."""

from pathlib import Path

import pytest
import torch

from configs import load_config
from loss import mmc_loss
from model import build_method, load_towers
from model.ot_solver import sinkhorn
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
