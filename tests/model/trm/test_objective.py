"""Eq. (15): which losses there are, and what each is weighted by."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from loss.summed_asl_loss import summed_asl_loss
from model.trm.losses import classification_loss, contrastive_loss, distillation_loss
from model.trm.objective import Learned, Objective, Weights
from model.trm.prototypes import Seen

ASL = partial(summed_asl_loss, gamma_neg=2.0, gamma_pos=1.0, clip=0.05, smallest=1e-8)
WEIGHTS = Weights(regions=3.0, distillation=0.5, contrast=0.25, distillation_temperature=4.0,
                  distillation_reduction="mean", contrast_temperature=0.1)  # fmt: skip


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def objective(**changes):
    return Objective(width=6, loss=ASL, weights=WEIGHTS._replace(**changes))


def learned():
    targets = torch.tensor([[1.0, 0, -1, 1], [0, 1, 1, -1]])
    candidates = Seen(F.normalize(drawn(3, 6, seed=3), dim=-1), torch.tensor([0, 3, 1]))
    anchors = F.normalize(drawn(4, 6, seed=4), dim=-1)
    return Learned(drawn(2, 4, seed=1), targets, targets < 0, torch.full((2, 4), -1), anchors, candidates)


def test_the_terms_are_those_of_equation_15():
    made, step, logits = objective(), learned(), drawn(2, 4)
    h = made.projection
    anchors, vectors = (
        F.normalize(h[2](h[0](x).clamp(min=0)), dim=-1) for x in (step.anchors, step.candidates.vectors)
    )
    expected = {
        "queries": classification_loss(step.query_logits, step.targets, summed_loss=ASL),
        "regions": 3 * classification_loss(logits, step.targets, summed_loss=ASL),
        "distillation": 0.5 * distillation_loss(step.query_logits, logits, temperature=4.0, reduction="mean"),
        "contrast": 0.25 * contrastive_loss(anchors, vectors, step.candidates.labels, temperature=0.1),
    }
    found = made(logits, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("gone", ["distillation", "contrast"])
def test_a_term_that_weighs_nothing_is_not_there(gone):
    made = objective(**{gone: 0.0})
    assert made(drawn(2, 4), learned()).keys() == {"queries", "regions", "distillation", "contrast"} - {gone}
    assert (made.projection is None) == (gone == "contrast")


def test_every_parameter_has_a_gradient_where_there_is_nothing_to_contrast():
    made, step = objective(), learned()
    step = step._replace(candidates=Seen(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64)))
    made(drawn(2, 4), step)["contrast"].backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
