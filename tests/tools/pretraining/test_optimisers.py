"""Which optimiser has which parameters."""

import pytest
import torch

from tools.pretraining.optimisers import adamw, muon
from tools.pretraining.towers import build


@pytest.fixture(scope="module")
def model():
    return build("ViT-S-8-emoji", 0)


@pytest.mark.parametrize("make", [adamw, muon])
def test_every_parameter_belongs_to_one_group(model, make):
    groups = [group for optimiser in make(model) for group in optimiser.param_groups]
    owned = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    assert all("factor" in group for group in groups)


def test_muon_has_the_matrices_of_the_blocks_alone(model):
    first, _ = muon(model)
    assert isinstance(first, torch.optim.Muon)
    assert len(first.param_groups[0]["params"]) == 4 * (6 + 4)  # attention in and out, MLP in and out
    assert id(model.token_embedding.weight) not in {id(p) for p in first.param_groups[0]["params"]}


def test_vectors_are_not_decayed_and_the_scale_learns_faster(model):
    (only,) = adamw(model)
    matrices, vectors, scale = only.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"], scale["weight_decay"]) == (0.05, 0, 0)
    assert scale["factor"] == 10
    assert [id(p) for p in scale["params"]] == [id(model.logit_scale)]
