from pathlib import Path

import numpy as np
import pytest
import torch

from loss.asl_loss import asl_loss, plain_asl_loss

RELEASE = np.load(Path(__file__).parents[1] / "data" / "release_asl.npz")
SETTINGS = [(2.0, 0.0, 0.0), (4.0, 1.0, 0.05), (0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (1.0, 2.0, 0.2)]


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 7, generator=generator)
    return logits, (torch.rand(4, 7, generator=generator) < 0.3).long()


def expected(logits, targets, gamma_neg, gamma_pos, clip):
    """Eq. (19), averaged over images and labels."""
    p, y = 1 / (1 + np.exp(-logits.double().numpy())), targets.numpy()
    shifted = np.maximum(p - clip, 0)
    present = y * (1 - p) ** gamma_pos * np.log(p)
    absent = (1 - y) * shifted**gamma_neg * np.log(1 - shifted)
    return -np.mean(present + absent)


@pytest.mark.parametrize(("case", "settings"), [("default", (2.0, 0.0, 0.0)), ("clip", (4.0, 1.0, 0.05))])
def test_loss_and_gradients_are_those_of_the_release(case, settings):
    logits = torch.from_numpy(RELEASE[f"{case}/logits"]).requires_grad_()
    gamma_neg, gamma_pos, clip = settings
    loss = asl_loss(
        logits, torch.from_numpy(RELEASE[f"{case}/targets"]), gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip
    )
    loss.backward()
    assert loss.item() == pytest.approx(RELEASE[f"{case}/loss"].item(), rel=1e-6)
    difference = np.linalg.norm(logits.grad.numpy() - RELEASE[f"{case}/grad"])
    assert difference <= 1e-6 * np.linalg.norm(RELEASE[f"{case}/grad"])


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
@pytest.mark.parametrize(("loss", "scale"), [(asl_loss, 1000), (plain_asl_loss, 1)])
def test_both_losses_have_the_value_of_equation_19(loss, scale, gamma_neg, gamma_pos, clip):
    logits, targets = drawn()
    found = loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    np.testing.assert_allclose(found.item(), scale * expected(logits, targets, gamma_neg, gamma_pos, clip), rtol=1e-5)


@pytest.mark.parametrize(("loss", "scale"), [(asl_loss, 1000), (plain_asl_loss, 1)])
def test_without_focusing_they_are_binary_cross_entropy(loss, scale):
    logits, targets = drawn()
    reference = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets.float())
    torch.testing.assert_close(loss(logits, targets, gamma_neg=0.0, gamma_pos=0.0, clip=0.0), scale * reference)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
def test_the_plain_gradient_is_that_of_the_whole_equation(gamma_neg, gamma_pos, clip):
    logits, targets = drawn()
    logits = logits.requires_grad_()
    plain_asl_loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip).backward()
    step = 1e-4
    for place in [(0, 0), (1, 3), (3, 6)]:
        sides = []
        for sign in (-1, 1):
            moved = logits.detach().double()
            moved[place] += sign * step
            sides.append(expected(moved, targets, gamma_neg, gamma_pos, clip))
        assert logits.grad[place].item() == pytest.approx((sides[1] - sides[0]) / (2 * step), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
def test_the_releases_focusing_weights_are_constants(gamma_neg, gamma_pos, clip):
    logits, targets = drawn()
    logits = logits.requires_grad_()
    asl_loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip).backward()
    p, y = logits.detach().double().sigmoid(), targets.double()
    above = (p > clip).double()
    shifted = (p - clip).clamp(min=0)
    # d/dP of log p is 1 - p, of log(1 - p + clip) it is -p (1 - p) / (1 - p_m)
    closed = y * (1 - p) ** gamma_pos * (1 - p)
    closed = closed - (1 - y) * above * shifted**gamma_neg * p * (1 - p) / (1 - shifted)
    torch.testing.assert_close(logits.grad.double(), -1000 * closed / p.numel(), rtol=1e-4, atol=1e-5)


def test_beyond_a_probability_of_1e_5_the_release_pulls_no_more():
    for level, target in ((-12.0, 1.0), (12.0, 0.0)):  # a probability of 6e-6 on the wrong side
        logits = torch.full((1, 1), level, requires_grad=True)
        loss = asl_loss(logits, torch.full((1, 1), target), gamma_neg=0.0, gamma_pos=0.0, clip=0.0)
        loss.backward()
        assert loss.item() == pytest.approx(-1000 * np.log(1e-5), rel=1e-5)
        assert logits.grad.item() == 0


@pytest.mark.parametrize("loss", [asl_loss, plain_asl_loss])
@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
def test_extreme_logits_give_a_finite_loss_and_finite_gradients(loss, gamma_neg, gamma_pos, clip):
    logits = torch.tensor([[500.0, -500.0, 0.0], [500.0, -500.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[1, 1, 1], [0, 0, 0]])
    value = loss(logits, targets, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_confident_mistakes_are_still_corrected_by_the_plain_form():
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    plain_asl_loss(logits, torch.tensor([[0, 1]]), gamma_neg=2.0, gamma_pos=0.0, clip=0.0).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5]]))


def test_at_the_margin_the_gradient_is_finite_for_any_focusing():
    logits = torch.zeros(1, 1, requires_grad=True)  # p = 0.5
    plain_asl_loss(logits, torch.zeros(1, 1), gamma_neg=0.5, gamma_pos=0.0, clip=0.5).backward()
    assert logits.grad.item() == 0


@pytest.mark.parametrize("loss", [asl_loss, plain_asl_loss])
def test_absent_labels_below_the_margin_cost_nothing(loss):
    logits = torch.full((2, 3), -4.0, requires_grad=True)  # p = 0.018
    value = loss(logits, torch.zeros(2, 3), gamma_neg=2.0, gamma_pos=0.0, clip=0.05)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


@pytest.mark.parametrize(("loss", "scale"), [(asl_loss, 1000), (plain_asl_loss, 1)])
def test_half_precision_logits_are_computed_in_float32(loss, scale):
    logits, targets = drawn()
    found = loss(logits.half(), targets, gamma_neg=2.0, gamma_pos=0.0, clip=0.0)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.item(), scale * expected(logits.half().float(), targets, 2.0, 0.0, 0.0), rtol=1e-5)


@pytest.mark.parametrize(("gamma_neg", "gamma_pos", "clip"), SETTINGS)
@pytest.mark.parametrize("loss", [asl_loss, plain_asl_loss])
def test_labels_that_are_not_known_are_as_if_they_were_not_there(loss, gamma_neg, gamma_pos, clip):
    logits, targets = drawn()
    known = torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    logits.requires_grad_()
    settings = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
    found = loss(logits, targets.masked_fill(~known, -1), **settings)
    found.backward()
    torch.testing.assert_close(found, loss(logits[known], targets[known], **settings))
    assert (logits.grad[~known] == 0).all()


@pytest.mark.parametrize("loss", [asl_loss, plain_asl_loss])
def test_of_nothing_known_the_loss_is_zero(loss):
    assert loss(drawn()[0], torch.full((4, 7), -1), gamma_neg=2.0, gamma_pos=0.0, clip=0.05).item() == 0
