import pytest
import torch

from configs import load_config
from loss import (
    LossError,
    asl_loss,
    build_loss,
    mmc_image_loss,
    mmc_loss,
    normalised_ranking_loss,
    plain_asl_loss,
    ranking_loss,
    summed_asl_loss,
)
from loss.build import build_summed_asl

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]])
TARGETS = torch.tensor([[1, 0, 1], [0, 0, 1]])


def test_mmc_is_the_default():
    assert build_loss(load_config()) is mmc_loss


@pytest.mark.parametrize(
    ("kind", "function"),
    [("MMC-IMAGE", mmc_image_loss), ("RANKING", ranking_loss), ("RANKING-MEAN", normalised_ranking_loss)],
)
def test_losses_without_settings_are_chosen_by_name(kind, function):
    assert build_loss(load_config(overrides=["MODEL.LOSS_TYPE", kind])) is function


@pytest.mark.parametrize(
    ("key", "argument"),
    [("SOLVER.GAMMA_NEG", "gamma_neg"), ("SOLVER.GAMMA_POS", "gamma_pos"), ("SOLVER.CLIP", "clip")],
)
@pytest.mark.parametrize(("kind", "function"), [("ASL", asl_loss), ("ASL-PLAIN", plain_asl_loss)])
def test_asl_obeys_each_of_its_keys(kind, function, key, argument):
    loss = build_loss(load_config(overrides=["MODEL.LOSS_TYPE", kind, key, "0.2"]))
    settings = {"gamma_neg": 2.0, "gamma_pos": 0.0, "clip": 0.0}
    changed = function(LOGITS, TARGETS, **settings | {argument: 0.2})
    assert loss(LOGITS, TARGETS) == changed
    assert changed != function(LOGITS, TARGETS, **settings)


def test_an_unknown_loss_is_refused_with_those_that_there_are():
    said = "MODEL.LOSS_TYPE must be one of MMC, MMC-IMAGE, RANKING, RANKING-MEAN, ASL, ASL-PLAIN, not 'BCE'"
    with pytest.raises(LossError, match=said):
        build_loss(load_config(overrides=["MODEL.LOSS_TYPE", "BCE"]))


@pytest.mark.parametrize(
    ("key", "argument"), [("GAMMA_NEG", "gamma_neg"), ("GAMMA_POS", "gamma_pos"), ("CLIP", "clip")]
)
def test_summed_asl_obeys_each_of_its_keys(key, argument):
    loss = build_summed_asl(load_config(overrides=[f"SOLVER.{key}", "0.2"]), smallest=1e-3)
    settings = {"gamma_neg": 2.0, "gamma_pos": 0.0, "clip": 0.0, "smallest": 1e-3} | {argument: 0.2}
    assert loss(LOGITS, TARGETS) == summed_asl_loss(LOGITS, TARGETS, **settings)
