"""Matchers without transport against reference plans and closed forms."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.matchers import Average, Bipartite, MatchingError, Reweight, matching_cost

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "matchers_reference.npz")
MATCHERS = {"average": Average(), "reweight": Reweight(20.0), "bipartite": Bipartite(100.0)}


def referenced(name):
    return torch.from_numpy(REFERENCE[name].astype(np.float64))


@pytest.mark.parametrize("name", MATCHERS)
def test_plans_are_the_reference_plans(name):
    similarity = referenced("in/similarities")
    plan = MATCHERS[name](similarity).plan
    torch.testing.assert_close(plan, referenced(f"out/plan.{name}"), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close((plan * similarity).sum(1), referenced(f"out/pooled.{name}"), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_sum_to_one_over_the_number_of_labels_in_the_dtype_given(name, dtype):
    similarity = torch.rand(3, 8, 5, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()
    plan = MATCHERS[name](similarity).plan
    assert (plan.dtype, plan.requires_grad) == (dtype, False)
    torch.testing.assert_close(plan.sum(1), torch.full((3, 5), 0.2, dtype=dtype))


@pytest.mark.parametrize("name", MATCHERS)
def test_what_the_teacher_knows_changes_nothing(name):
    similarity, q = referenced("in/similarities"), referenced("in/teacher")
    assert not MATCHERS[name].needs_teacher
    found = MATCHERS[name](similarity, q, referenced("in/targets")).plan
    assert torch.equal(found, MATCHERS[name](similarity).plan)


def test_a_bipartite_plan_pairs_every_label_with_a_region_of_its_own():
    plan = MATCHERS["bipartite"](torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(1))).plan
    assert ((plan > 0).sum(1) == 1).all()
    assert ((plan > 0).sum(2) == 1).all()


def test_more_labels_than_regions_cannot_be_paired():
    with pytest.raises(MatchingError, match=r"there are 4 regions and 5 labels: choose another MODEL\.MATCHER"):
        MATCHERS["bipartite"](torch.rand(1, 4, 5))


def test_the_cost_is_that_of_the_reference():
    torch.testing.assert_close(matching_cost(referenced("in/similarities"), 100.0), referenced("out/cost"))
