from pathlib import Path

import numpy as np
import pytest
import torch

from loss.asl_loss import asl_loss
from loss.summed_asl_loss import summed_asl_loss

DATA = Path(__file__).parents[1] / "data"
ML_DECODER, FORK = np.load(DATA / "release_ml_decoder.npz"), np.load(DATA / "release_trm_parts.npz")
OFFICIAL = {"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "smallest": 1e-8}


def tensors(*names):
    return (torch.from_numpy(ML_DECODER[name].astype(np.float32)) for name in names)


def drawn():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 7, generator=generator)
    return logits, (torch.rand(4, 7, generator=generator) < 0.3).long()


@pytest.mark.parametrize(
    ("inputs", "loss", "gradient"),
    [(("loss/in/logits", "loss/in/targets"), "loss/out/loss", "loss/grad/logits"),
     (("out/logits", "in/targets"), "out/loss", "grad/logits")],
)  # fmt: skip
def test_loss_and_gradients_are_those_of_ml_decoders_code(inputs, loss, gradient):
    logits, targets = tensors(*inputs)
    logits.requires_grad_()
    found = summed_asl_loss(logits, targets, **OFFICIAL)
    found.backward()
    assert found.item() == pytest.approx(ML_DECODER[loss].item(), rel=1e-6)
    expected = ML_DECODER[gradient]
    assert np.linalg.norm(logits.grad.numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize(("case", "settings"), [("fork", (2.0, 1.0, 0.05)), ("bce", (0.0, 0.0, 0.0))])
def test_over_the_images_it_is_that_of_dual_coop_modified_for_missing_labels_and_cross_entropy(case, settings):
    logits, given = torch.from_numpy(FORK["asl/logits"]).requires_grad_(), FORK["asl/target"]
    targets = torch.from_numpy(np.select([given == 1, given == -1], [1, 0], -1))
    gammas = dict(zip(("gamma_neg", "gamma_pos", "clip"), settings, strict=True))
    found = summed_asl_loss(logits, targets, smallest=1e-8, **gammas) / len(logits)
    found.backward()
    assert found.item() == pytest.approx(FORK[f"asl/{case}/loss"].item(), rel=1e-6)
    expected = FORK[f"asl/{case}/grad"]
    assert np.linalg.norm(logits.grad.numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("settings", [(2.0, 0.0, 0.0), (4.0, 1.0, 0.05), (1.0, 2.0, 0.2)])
def test_it_is_the_sum_of_what_rams_release_takes_the_mean_of(settings):
    logits, targets = drawn()
    gammas = dict(zip(("gamma_neg", "gamma_pos", "clip"), settings, strict=True))
    found = summed_asl_loss(logits, targets, smallest=1e-5, **gammas)
    torch.testing.assert_close(found, asl_loss(logits, targets, **gammas) * logits.numel() / 1000)


def test_labels_that_are_not_known_take_no_part():
    logits, targets = drawn()
    logits.requires_grad_()
    known = torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    found = summed_asl_loss(logits, targets.masked_fill(~known, -1), **OFFICIAL)
    found.backward()
    torch.testing.assert_close(found, summed_asl_loss(logits[known], targets[known], **OFFICIAL))
    assert torch.equal(logits.grad[~known], torch.zeros(int((~known).sum())))


@pytest.mark.parametrize(("level", "target"), [(-12.0, 1), (12.0, 0)])  # a probability of 6e-6 on the wrong side
def test_beyond_the_smallest_probability_there_is_no_pull(level, target):
    for smallest, pulls in ((1e-5, False), (1e-8, True)):
        logits = torch.full((1, 1), level, requires_grad=True)
        settings = {"gamma_neg": 0.0, "gamma_pos": 0.0, "clip": 0.0, "smallest": smallest}
        summed_asl_loss(logits, torch.full((1, 1), target), **settings).backward()
        assert (logits.grad.item() != 0) == pulls


def test_half_precision_logits_are_computed_in_float32():
    logits, targets = drawn()
    found = summed_asl_loss(logits.half(), targets, **OFFICIAL)
    assert found.dtype == torch.float32
    assert found == summed_asl_loss(logits.half().float(), targets, **OFFICIAL)
