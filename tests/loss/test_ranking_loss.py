from pathlib import Path

import numpy as np
import pytest
import torch

from loss.ranking_loss import ranking_loss

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "release_ranking.npz")


def test_loss_and_gradient_are_those_of_official_code():
    logits = torch.from_numpy(REFERENCE["in/logits"].astype(np.float32)).requires_grad_()
    targets = torch.from_numpy(REFERENCE["in/targets"].astype(np.float32))
    loss = ranking_loss(logits, targets)
    loss.backward()
    assert loss.item() == pytest.approx(REFERENCE["out/sum.loss"].item(), rel=1e-6)
    np.testing.assert_allclose(logits.grad, REFERENCE["grad/sum.logits"], rtol=1e-5, atol=1e-7)
    for image, expected in enumerate(REFERENCE["out/sum.per_image"]):
        one = ranking_loss(logits[image : image + 1].detach(), targets[image : image + 1])
        assert one.item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_labels_in_order_by_the_margin_cost_nothing():
    logits, targets = torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([[1, 0, 0]])
    assert ranking_loss(logits, targets).item() == 0
    assert ranking_loss(logits - torch.tensor([[0.25, 0, 0]]), targets).item() == pytest.approx(0.5)


@pytest.mark.parametrize("targets", [torch.zeros(2, 3), torch.ones(2, 3)])
def test_images_without_a_pair_cost_nothing(targets):
    assert ranking_loss(torch.randn(2, 3), targets).item() == 0


def test_half_precision_logits_are_computed_in_float32():
    logits, targets = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).half(), torch.eye(3, 5)
    assert ranking_loss(logits, targets) == ranking_loss(logits.float(), targets)
    assert ranking_loss(logits, targets).dtype == torch.float32
