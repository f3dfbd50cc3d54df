import numpy as np
import pytest
import torch

from loss.asl_loss import asl_loss

SETTINGS = [(2.0, 0.0, 0.0), (4.0, 1.0, 0.05), (0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (1.0, 2.0, 0.2)]


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 7, generator=generator)
    return logits, (torch.rand(4, 7, generator=generator) < 0.3).long()


def expected(logits, targets, gamma_neg, gamma_pos, clip):
    """Eq. (19) times 1000, averaged over images and labels."""
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), targets.numpy()
    shifted = np.maximum(p - clip, 0)
    present = y * (1 - p) ** gamma_pos * np.log(p)
    absent = (1 - y) * shifted**gamma_neg * np.log(1 - shifted)
    return -1000 * np.mean(present + absent)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
def test_loss_is_equation_19_times_1000(gamma_neg, gamma_pos, clip):
    logits, targets = drawn()
    found = asl_loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    np.testing.assert_allclose(found.item(), expected(logits, targets, gamma_neg, gamma_pos, clip), rtol=1e-5)


def test_loss_without_focusing_is_binary_cross_entropy():
    logits, targets = drawn()
    reference = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    torch.testing.assert_close(asl_loss(logits, targets, gamma_neg=0.0, gamma_pos=0.0, clip=0.0), 1000 * reference)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
def test_extreme_logits_give_a_finite_loss_and_finite_gradients(gamma_neg, gamma_pos, clip):
    logits = torch.tensor([[500.0, -500.0, 0.0], [500.0, -500.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[1, 1, 1], [0, 0, 0]])
    loss = asl_loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] < 0  # the missed label is still pulled up


def test_confident_mistakes_are_still_pushed_down_without_a_margin():
    logits = torch.tensor([[500.0]], requires_grad=True)
    asl_loss(logits, torch.zeros(1, 1), gamma_neg=2.0, gamma_pos=0.0, clip=0.0).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1000.0]]))


def test_absent_labels_below_the_margin_cost_nothing():
    logits = torch.full((2, 3), -4.0, requires_grad=True)  # p = 0.018
    loss = asl_loss(logits, torch.zeros(2, 3), gamma_neg=2.0, gamma_pos=0.0, clip=0.05)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_half_precision_logits_are_computed_in_float32():
    logits, targets = drawn()
    loss = asl_loss(logits.half(), targets, gamma_neg=2.0, gamma_pos=0.0, clip=0.0)
    assert loss.dtype == torch.float32
    np.testing.assert_allclose(loss.item(), expected(logits.half().float(), targets, 2.0, 0.0, 0.0), rtol=1e-5)
