"""The solver beside others."""

import pytest
import torch

from model.ot_solver import sinkhorn
from tools.benchmarking import solver
from tools.benchmarking.reference import looped_sinkhorn
from tools.benchmarking.solver import LOOP, NATIVE, POT, REG, measure, problems


@pytest.mark.parametrize("kernel", [True, False])
def test_every_size_is_solved_by_its_rule_and_with_a_hundred_iterations(kernel, quick, monkeypatch):
    monkeypatch.setattr(solver, "SIZES", ((2, 5, 3), (2, 5, 4), (9, 9, 9)))
    monkeypatch.setattr(solver, "has_kernel", lambda device: kernel and device.type == "cpu")
    monkeypatch.setattr(solver, "solve_natively", sinkhorn)  # where there is no compiler too
    found = list(measure(quick))
    ends = [f"{end}{kind}" for end in ("iterations as needed", "100 iterations") for kind in ("", NATIVE)[: 1 + kernel]]
    cases = [f"solver, {size}, {end}" for size in ("2 x 5 x 3", "2 x 5 x 4") for end in ends]
    assert list(dict.fromkeys(one.case for one in found)) == cases
    for case in cases:
        ratios = {one.quantity for one in found if one.case == case and one.quantity.startswith("faster")}
        assert {f"faster than {rival}" for rival in (LOOP, POT)} <= ratios


def test_all_three_solve_the_same_problems():
    made = problems((3, 20, 6), torch.device("cpu"))
    own = sinkhorn(*made, reg=REG, max_iter=300, tol=None).plan
    torch.testing.assert_close(looped_sinkhorn(*made, reg=REG, max_iter=300, tol=0.0)[0], own, rtol=1e-3, atol=1e-7)
    pot = solver._pot(made, 300)().plan
    torch.testing.assert_close(pot, own, rtol=1e-3, atol=1e-7)


def test_rows_and_columns_of_problems_have_their_sums():
    cost, mu, nu = problems((2, 30, 4), torch.device("cpu"))
    assert (cost.shape, cost.min() >= 0, cost.max() <= 1) == ((2, 30, 4), True, True)
    for weights in (mu, nu):
        torch.testing.assert_close(weights.sum(1), torch.ones(2))
