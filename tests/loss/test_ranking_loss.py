"""Ranking losses against numbers of official code, and what they say of images without pairs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from loss.ranking_loss import normalised_ranking_loss, rankable, ranking_loss

DATA = Path(__file__).parents[1] / "data"
REFERENCE, MKT = np.load(DATA / "release_ranking.npz"), np.load(DATA / "release_mkt.npz")
CASES = [
    (ranking_loss, "sum", "in/targets"),
    (normalised_ranking_loss, "normalised", "in/targets"),
    (normalised_ranking_loss, "normalised_ternary", "in/targets_ternary"),
]
BOTH = pytest.mark.parametrize("loss", [ranking_loss, normalised_ranking_loss])


def from_signs(signs):
    """Targets 1, 0 and -1 (not known) from the methods' +1, -1 and 0."""
    return torch.from_numpy(np.select([signs == 1, signs == -1], [1, 0], -1))


def targets_of(key):
    targets = REFERENCE[key]
    return from_signs(targets) if key.endswith("ternary") else torch.from_numpy(targets)


@pytest.mark.parametrize(("loss", "name", "targets"), CASES)
def test_loss_and_gradient_are_those_of_official_code(loss, name, targets):
    logits = torch.from_numpy(REFERENCE["in/logits"].astype(np.float32)).requires_grad_()
    found = loss(logits, targets_of(targets))
    found.backward()
    assert found.item() == pytest.approx(REFERENCE[f"out/{name}.loss"].item(), rel=1e-6)
    np.testing.assert_allclose(logits.grad, REFERENCE[f"grad/{name}.logits"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("loss", "name", "targets"), CASES)
def test_the_loss_of_each_image_is_that_of_official_code(loss, name, targets):
    logits, targets = torch.from_numpy(REFERENCE["in/logits"].astype(np.float32)), targets_of(targets)
    found = [loss(logits[i : i + 1], targets[i : i + 1]).item() for i in range(len(logits))]
    assert found == pytest.approx(REFERENCE[f"out/{name}.per_image"].tolist(), rel=1e-6, abs=1e-7)


def test_wide_scores_of_which_some_are_in_order_cost_what_they_cost_mkt():
    scores = torch.from_numpy(MKT["ranking/in/score"].astype(np.float32)).requires_grad_()
    loss = normalised_ranking_loss(scores, from_signs(MKT["ranking/in/targets"]))
    loss.backward()
    assert loss.item() == pytest.approx(MKT["ranking/out/loss"].item(), rel=1e-6)
    np.testing.assert_allclose(scores.grad, MKT["ranking/grad/score"], rtol=1e-5, atol=1e-7)


def test_labels_in_order_by_the_margin_cost_nothing():
    logits, targets = torch.tensor([[2.0, 1.0, 1.0]]), torch.tensor([[1, 0, 0]])
    assert ranking_loss(logits, targets).item() == 0
    assert ranking_loss(logits - torch.tensor([[0.25, 0, 0]]), targets).item() == pytest.approx(0.5)
    assert normalised_ranking_loss(logits - torch.tensor([[0.25, 0, 0]]), targets).item() == pytest.approx(0.25)


@BOTH
@pytest.mark.parametrize("targets", [torch.zeros(2, 3), torch.ones(2, 3), -torch.ones(2, 3)])
def test_images_without_a_pair_cost_nothing_and_have_no_gradient(loss, targets):
    logits = torch.randn(2, 3, requires_grad=True)
    found = loss(logits, targets)
    found.backward()
    assert found.item() == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


@BOTH
def test_labels_that_are_not_known_take_no_part(loss):
    logits, targets = torch.randn(3, 4), torch.tensor([[1, 0, 0, -1], [0, 1, 1, -1], [1, 1, 0, -1]])
    torch.testing.assert_close(loss(logits, targets), loss(logits[:, :3], targets[:, :3]))


@BOTH
def test_half_precision_logits_are_computed_in_float32(loss):
    logits, targets = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).half(), torch.eye(3, 5)
    assert loss(logits, targets) == loss(logits.float(), targets)
    assert loss(logits, targets).dtype == torch.float32


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([[0, 1], [0, 0], [-1, 0], [1, 1]], [True, False, False, True]),
        ([[0, 0], [-1, 0]], [True, True]),  # else nothing would be left
    ],
)
def test_images_without_a_present_label_have_nothing_to_rank(targets, expected):
    assert rankable(torch.tensor(targets)).tolist() == expected
