"""POT in the place of our solver, and its unbalanced problem."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model.kcot import KCOT
from model.ot_solver import sinkhorn
from model.pot_solver import Unbalanced, solve_with_pot

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "matchers_reference.npz")


def problem(size=3, regions=9, labels=4, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(size, regions, labels, generator=generator, dtype=dtype)
    mu = torch.rand(size, regions, generator=generator, dtype=dtype).softmax(1)
    return cost, mu, torch.full((size, labels), 1 / labels, dtype=dtype)


@pytest.mark.parametrize("reg", [0.05, 0.1, 1.0])
def test_pots_plans_are_ours(reg):
    found = solve_with_pot(*problem(), reg=reg, max_iter=5000, tol=1e-9)
    ours = sinkhorn(*problem(), reg=reg, max_iter=5000, tol=1e-9)
    torch.testing.assert_close(found.plan, ours.plan, rtol=1e-3, atol=1e-6)
    assert found.plan.dtype == torch.float32
    assert found.error.max() < 1e-6


def test_so_many_iterations_give_the_reference_plan(monkeypatch):
    mu = torch.from_numpy(REFERENCE["in/marginal_regions"].astype(np.float64))
    monkeypatch.setattr("model.kcot.label_presence", lambda *_: mu)  # given there
    similarity, q, targets = (
        torch.from_numpy(REFERENCE[f"in/{key}"].astype(np.float64)) for key in ("similarities", "teacher", "targets")
    )
    solve = partial(solve_with_pot, max_iter=5, tol=0.0)
    matcher = KCOT(scale=100.0, reg=0.1, reg_teacher=0.05, presence_temperature=0.1, solve=solve)
    found = matcher(similarity, q, targets)
    torch.testing.assert_close(found.plan, torch.from_numpy(REFERENCE["out/plan.kcot.5"]), rtol=1e-10, atol=0)
    assert found.diagnostics["solver_iterations"].tolist() == [5, 5]


def test_the_error_is_that_of_the_region_marginal():
    cost, mu, nu = problem()
    found = solve_with_pot(cost, mu, nu, reg=0.05, max_iter=2, tol=0.0)
    torch.testing.assert_close(found.error, (found.plan.sum(2) - mu).abs().sum(1), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.plan.sum(1), nu)


def unbalanced(relax, **changes):
    settings = {"scale": 100.0, "reg": 0.1, "relax": relax, "max_iter": 3000, "tol": 1e-9}
    return Unbalanced(**settings | changes)


def similarities():
    return 0.1 * torch.rand(2, 7, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_a_high_price_is_balanced_transport():
    balanced = KCOT(
        scale=100.0, reg=0.1, reg_teacher=None, presence_temperature=None,
        solve=partial(sinkhorn, max_iter=3000, tol=1e-12),
    )  # fmt: skip
    found = unbalanced(1e4)(similarities())
    torch.testing.assert_close(found.plan, balanced(similarities()).plan, rtol=1e-3, atol=1e-6)


def test_without_a_price_every_label_chooses_its_regions_for_itself():
    found = unbalanced(1e-6)(similarities())
    expected = (-found.cost / 0.1).softmax(1) / 4  # reg KL(T | mu nu) with uniform mu and exact columns
    torch.testing.assert_close(found.plan, expected, rtol=1e-3, atol=1e-6)


def test_columns_are_exact_in_the_dtype_given():
    found = unbalanced(0.5, max_iter=1)(similarities().float())
    assert found.plan.dtype == torch.float32
    torch.testing.assert_close(found.plan.sum(1), torch.full((2, 4), 0.25))
