"""The model on a GPU, at every precision that is offered there."""

from functools import partial
from pathlib import Path

import pytest
import torch

from configs import load_config
from loss import mmc_loss
from model import build_method, load_towers
from model.kcot import KCOT
from model.ot_solver import sinkhorn
from model.ot_triton import FusedKCOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = ("red circle", "blue star", "green ring")
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 1]])


def step(device, dtype=None):
    """Scores, and the loss after forward and backward, of a fixed tiny model."""
    cfg = load_config("configs/tiny.yml")
    towers = load_towers(cfg)
    torch.manual_seed(0)
    model = build_method(cfg, towers).to(device)
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
