from pathlib import Path

import numpy as np
import pytest
import torch

from loss.asl_loss import asl_loss
from loss.summed_asl_loss import summed_asl_loss

RELEASE = np.load(Path(__file__).parents[1] / "data" / "release_dualcoop.npz")
DUAL_COOP = {"gamma_neg": 2.0, "gamma_pos": 1.0, "clip": 0.05, "smallest": 1e-6}


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def test_loss_and_gradients_are_those_of_dual_coops_release_on_extreme_logits_too():
    positive, negative = (released(f"loss/in/logits.{side}").requires_grad_() for side in ("positive", "negative"))
    loss = summed_asl_loss(positive - negative, released("loss/in/targets"), **DUAL_COOP)
    loss.backward()
    assert loss.item() == pytest.approx(RELEASE["loss/out/loss"].item(), rel=1e-6)
    expected = released("loss/grad/logits.positive")
    assert (positive.grad - expected).norm() <= 1e-5 * expected.norm()
    assert torch.equal(negative.grad, -positive.grad)


@pytest.mark.parametrize("settings", [(2.0, 0.0, 0.0), (4.0, 1.0, 0.05), (0.0, 0.0, 0.0)])
def test_it_is_the_sum_of_what_the_releases_asl_is_a_thousand_times_the_mean_of(settings):
    generator = torch.Generator().manual_seed(0)
    logits, targets = 9 * torch.randn(4, 7, generator=generator), torch.randint(0, 2, (4, 7), generator=generator)
    how = dict(zip(("gamma_neg", "gamma_pos", "clip"), settings, strict=True))
    found = summed_asl_loss(logits, targets, smallest=1e-5, **how)
    torch.testing.assert_close(found, asl_loss(logits, targets, **how) * logits.numel() / 1000)


def test_labels_that_are_not_known_count_for_nothing():
    logits = torch.tensor([[3.0, -2.0, 50.0], [0.5, 1.0, -50.0]], requires_grad=True)
    loss = summed_asl_loss(logits, torch.tensor([[1, 0, -1], [0, 1, -1]]), **DUAL_COOP)
    loss.backward()
    assert torch.equal(logits.grad[:, 2], torch.zeros(2))
    known = summed_asl_loss(logits[:, :2], torch.tensor([[1, 0], [0, 1]]), **DUAL_COOP)
    torch.testing.assert_close(loss, known)


def test_nothing_known_is_no_loss():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = summed_asl_loss(logits, torch.full((2, 3), -1), **DUAL_COOP)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_half_precision_is_computed_in_float32():
    logits, targets = torch.randn(2, 3), torch.ones(2, 3)
    found = summed_asl_loss(logits.bfloat16(), targets, **DUAL_COOP)
    assert found.dtype == torch.float32
    assert torch.equal(found, summed_asl_loss(logits.bfloat16().float(), targets, **DUAL_COOP))
