"""The plain reference and the product compute the same."""

import pytest
import torch
import torch.nn.functional as F

from configs import load_config
from model import build_method, load_towers
from tools.benchmarking.reference import PlainRAM, looped_sinkhorn

NAMES = ("dog", "traffic light", "person", "fire hydrant near a wall", "kite")
TARGETS = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])


@pytest.fixture(scope="module")
def both():
    """A tiny RAM with prompts as large as after a training, and the reference."""
    cfg = load_config("configs/tiny.yml", ["MODEL.OT_STOP", "batch", "MODEL.LADDER_FACTOR", "0.5"])
    towers = load_towers(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = build_method(cfg, towers)
        with torch.no_grad():
            for prompts in (method.visual_prompts, method.label_prompts):
                for parameter in prompts.parameters():
                    parameter.mul_(20)
    return method, PlainRAM(method, cfg, towers.logit_scale)


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_scores_and_logits_are_those_of_the_product(both, images):
    method, reference = both
    method.eval()
    with torch.no_grad():
        ours, plain = method(images, method.encode_labels(NAMES)), reference(images, reference.encode(NAMES))
    assert ours.scores.std() > 0.01
    for name in ("scores", "local_logits", "global_logits"):
        torch.testing.assert_close(getattr(ours, name), getattr(plain, name), rtol=1e-4, atol=1e-4)


def test_losses_and_gradients_are_those_of_the_product(both, images):
    method, reference = both
    method.train()
    labels = method.encode_labels(NAMES)
    loss = sum(method.losses(method(images, labels, TARGETS), TARGETS).values())
    plain = reference.loss(images, NAMES, TARGETS, reference.teacher_labels(NAMES))
    assert plain.item() == pytest.approx(loss.item(), rel=1e-4)
    parameters = [parameter for group in method.groups() for parameter in group.parameters]
    gradients = (torch.autograd.grad(each, parameters) for each in (loss, plain))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * ours.norm()
        assert ours.norm() > 0


def test_without_the_teacher_the_loss_is_another(both, images):
    method, reference = both
    method.train()
    labels, frozen = reference.encode(NAMES), reference.teacher_labels(NAMES)
    taught = reference(images, labels, TARGETS, frozen).local_logits
    assert (taught - reference(images, labels).local_logits).abs().max() > 1e-3


def test_plans_of_the_loop_have_their_sums_and_end_by_its_rule():
    torch.manual_seed(0)
    cost, mu = torch.rand(2, 9, 4), F.normalize(torch.rand(2, 9), p=1, dim=1)
    nu = torch.full((2, 4), 1 / 4)
    plan, iterations = looped_sinkhorn(cost, mu, nu, reg=0.1, max_iter=500, tol=1e-7)
    assert 1 < iterations < 500
    torch.testing.assert_close(plan.sum(2), mu, atol=1e-5, rtol=0)
    torch.testing.assert_close(plan.sum(1), nu)
    assert looped_sinkhorn(cost, mu, nu, reg=0.1, max_iter=3, tol=0.0)[1] == 3
