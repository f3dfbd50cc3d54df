"""Sinkhorn against POT in float64, closed forms, and the properties that its docstring promises."""

import numpy as np
import ot
import pytest
import torch

from model.ot_solver import LARGEST_EXPONENT, sinkhorn


def problem(batch=3, regions=7, labels=5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(batch, regions, labels, generator=generator, dtype=dtype)
    mu = torch.rand(batch, regions, generator=generator, dtype=dtype).softmax(1)
    nu = torch.full((batch, labels), 1 / labels, dtype=dtype)
    return cost, mu, nu


def pot(cost, mu, nu, reg, iterations=100_000):
    plans = [
        ot.sinkhorn(m.double().numpy(), n.double().numpy(), c.double().numpy(), reg, method="sinkhorn_log",
                    numItermax=iterations, stopThr=1e-14, warn=False)
        for c, m, n in zip(cost, mu, nu, strict=True)
    ]  # fmt: skip
    return torch.from_numpy(np.stack(plans))


@pytest.mark.parametrize(("reg", "iterations"), [(0.05, 2000), (0.1, 1000), (0.15, 500), (1.0, 100)])
def test_converged_plans_equal_pot_in_float64(reg, iterations):
    cost, mu, nu = problem(dtype=torch.float64)
    mu, nu = mu / mu.sum(1, keepdim=True), nu / nu.sum(1, keepdim=True)
    found = sinkhorn(cost, mu, nu, reg=reg, max_iter=iterations, tol=0.0)
    torch.testing.assert_close(found.plan, pot(cost, mu, nu, reg), rtol=1e-9, atol=1e-12)


def test_plans_with_reg_1e_3_equal_pot_when_given_enough_iterations():
    cost, mu, nu = problem(batch=2, regions=6, labels=4)
    cost, mu, nu = cost.double(), mu.double() / mu.double().sum(1, keepdim=True), nu.double()
    found = sinkhorn(cost, mu, nu, reg=1e-3, max_iter=20_000, tol=1e-12)
    torch.testing.assert_close(found.plan, pot(cost, mu, nu, 1e-3), rtol=1e-6, atol=1e-9)


def test_the_default_tolerance_does_not_stop_small_reg_early():
    cost, mu, nu = problem(batch=2, regions=6, labels=4)
    found = sinkhorn(cost, mu, nu, reg=1e-3, max_iter=20_000)
    mu = mu.double() / mu.double().sum(1, keepdim=True)
    torch.testing.assert_close(found.plan.double(), pot(cost, mu, nu.double(), 1e-3), rtol=1e-4, atol=1e-6)


def test_plans_with_reg_1e_3_are_finite_after_100_iterations_with_columns_that_sum_to_nu():
    cost, mu, nu = problem(regions=196, labels=48)
    found = sinkhorn(cost, mu, nu, reg=1e-3)
    assert torch.isfinite(found.plan).all()
    torch.testing.assert_close(found.plan.sum(1), nu)


def test_kernel_of_the_scaling_domain_would_have_underflowed_there():
    cost, _, _ = problem(regions=196, labels=48)
    assert (torch.exp(-cost / 1e-3) == 0).float().mean() > 0.5


def test_log_domain_and_scaling_domain_make_the_same_iterations():
    cost, mu, nu = problem(dtype=torch.float64)
    plain = sinkhorn(cost, mu, nu, reg=0.1, max_iter=7, tol=0.0)
    shift = 0.1 * (LARGEST_EXPONENT + 5)  # a constant added to the cost changes no iterate's plan after b's update
    shifted = sinkhorn(cost + shift, mu, nu, reg=0.1, max_iter=7, tol=0.0)
    torch.testing.assert_close(shifted.plan, plain.plan, rtol=1e-9, atol=1e-14)


def test_columns_sum_to_nu_and_error_is_the_l1_error_of_the_rows():
    cost, mu, nu = problem()
    found = sinkhorn(cost, mu, nu, reg=0.1, max_iter=3)
    torch.testing.assert_close(found.plan.sum(1), nu)
    torch.testing.assert_close(found.error, (found.plan.sum(2) - mu).abs().sum(1))
    assert (found.error > 1e-6).all()


def test_error_falls_with_iterations():
    cost, mu, nu = problem()
    errors = [sinkhorn(cost, mu, nu, reg=0.1, max_iter=n, tol=0.0).error.max() for n in (1, 4, 16)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_a_plan_does_not_depend_on_its_batch(reg):
    cost, mu, nu = problem(batch=6, regions=25, labels=9)
    cost[3] *= 5  # takes another number of iterations
    together = sinkhorn(cost, mu, nu, reg=reg)
    for i in range(len(cost)):
        alone = sinkhorn(cost[i : i + 1], mu[i : i + 1], nu[i : i + 1], reg=reg)
        assert alone.iterations.item() == together.iterations[i].item()
        torch.testing.assert_close(together.plan[i], alone.plan[0], rtol=1e-6, atol=1e-9)


def test_images_of_both_domains_in_one_batch_keep_their_places():
    cost, mu, nu = problem(batch=4)
    cost[[0, 2]] *= 60  # these leave the scaling domain
    together = sinkhorn(cost, mu, nu, reg=0.1)
    for i in range(4):
        alone = sinkhorn(cost[i : i + 1], mu[i : i + 1], nu[i : i + 1], reg=0.1)
        torch.testing.assert_close(together.plan[i], alone.plan[0], rtol=1e-6, atol=1e-9)
        assert together.iterations[i] == alone.iterations[0]


@pytest.mark.parametrize("tol", [1e-3, None])
@pytest.mark.parametrize("images", [0, 1, 2])
def test_images_in_blocks_are_solved_as_those_of_one_block(images, tol, monkeypatch):
    cost, mu, nu = problem(batch=5, regions=25, labels=9)
    cost[3] *= 5
    cost[[1, 4]] *= 1 if tol is None else 60  # of the log domain, one beside another image and one alone in a block
    together = sinkhorn(cost, mu, nu, reg=0.1, tol=tol)
    monkeypatch.setattr("model.ot_solver.BLOCK", images * 25 * 9 * 4)
    blocks = sinkhorn(cost, mu, nu, reg=0.1, tol=tol)
    assert torch.equal(blocks.iterations, together.iterations)
    torch.testing.assert_close(blocks.plan, together.plan, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(blocks.error, together.error, rtol=1e-3, atol=1e-6)


def test_no_images_have_no_plans():
    found = sinkhorn(*(t[:0] for t in problem()), reg=0.1)
    assert [t.shape for t in found] == [(0, 7, 5), (0,), (0,)]


def test_batch_stop_gives_all_images_the_iterations_of_the_slowest():
    cost, mu, nu = problem(batch=6, regions=25, labels=9)
    cost[3] *= 5
    single = sinkhorn(cost, mu, nu, reg=0.1).iterations
    assert single.min() < single.max()
    together = sinkhorn(cost, mu, nu, reg=0.1, stop="batch").iterations.tolist()
    assert len(set(together)) == 1
    assert together[0] >= int(single.max())


def test_batch_stop_holds_within_one_domain_too():
    cost, mu, nu = problem(batch=6, regions=25, labels=9)
    cost[3] *= 3
    single = sinkhorn(cost, mu, nu, reg=0.1).iterations
    assert single.min() < single.max()
    assert sinkhorn(cost, mu, nu, reg=0.1, stop="batch").iterations.tolist() == [int(single.max())] * 6


def test_iterations_stop_by_the_release_rule():
    cost, mu, nu = problem(batch=1)
    kernel, a = torch.exp(-cost[0] / 0.1), torch.ones(7)
    b, taken, change = torch.ones(5), 0, 1.0
    while change >= 1e-3:
        previous, a = a, mu[0] / (kernel @ b)
        b = nu[0] / (kernel.T @ a)
        taken, change = taken + 1, (a - previous).abs().mean()
    assert sinkhorn(cost, mu, nu, reg=0.1).iterations.item() == taken


def test_iterations_never_exceed_max_iter():
    cost, mu, nu = problem()
    assert sinkhorn(cost, mu, nu, reg=0.1, max_iter=4, tol=0.0).iterations.tolist() == [4, 4, 4]


def test_nan_is_not_taken_for_convergence():
    cost, mu, nu = problem()
    cost[1, 0, 0] = float("nan")
    assert sinkhorn(cost, mu, nu, reg=0.1, max_iter=5, tol=1.0).iterations[1] == 5


def test_a_constant_added_to_a_column_of_the_cost_changes_no_converged_plan():
    cost, mu, nu = problem(dtype=torch.float64)
    moved = cost + torch.tensor([0.0, 0.7, -0.3, 0.2, 0.0], dtype=torch.float64)
    first, second = (sinkhorn(c, mu, nu, reg=0.1, max_iter=5000, tol=1e-14).plan for c in (cost, moved))
    torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-10)


def test_a_constant_cost_gives_the_product_of_the_marginals():
    _, mu, nu = problem()
    found = sinkhorn(torch.full((3, 7, 5), 0.4), mu, nu, reg=0.1)
    torch.testing.assert_close(found.plan, mu[:, :, None] * nu[:, None, :])


def test_small_reg_gives_the_optimal_assignment():
    cost = torch.tensor([[[0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]])
    uniform = torch.full((1, 3), 1 / 3)
    plan = sinkhorn(cost, uniform, uniform, reg=1e-3).plan[0]
    torch.testing.assert_close(plan, (1 - cost[0]) / 3)


def test_result_is_float32_within_autocast_and_for_half_precision_input():
    cost, mu, nu = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sinkhorn(cost, mu, nu, reg=0.1)
    torch.testing.assert_close(inside.plan, sinkhorn(cost, mu, nu, reg=0.1).plan, rtol=0, atol=0)
    assert sinkhorn(cost.half(), mu.half(), nu.half(), reg=0.1).plan.dtype == torch.float32
    assert sinkhorn(cost.double(), mu.double(), nu.double(), reg=0.1).plan.dtype == torch.float64


def test_arguments_are_left_as_they_were_and_no_gradient_flows():
    cost, mu, nu = problem()
    copies = [t.clone() for t in (cost, mu, nu)]
    found = sinkhorn(cost.requires_grad_(), mu, nu, reg=0.1)
    assert not found.plan.requires_grad
    assert all(torch.equal(t, c) for t, c in zip((cost.detach(), mu, nu), copies, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg": 0.0}, "reg must be positive"),
        ({"max_iter": 0}, "max_iter must be at least 1"),
        ({"stop": "never"}, "stop must be"),
        ({"mu": torch.ones(3, 6)}, r"\(3, 6\)"),
        ({"nu": torch.ones(2, 5)}, r"\(2, 5\)"),
        ({"cost": torch.ones(7, 5)}, r"\(7, 5\)"),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    cost, mu, nu = problem()
    arguments = {"cost": cost, "mu": mu, "nu": nu, "reg": 0.1} | change
    with pytest.raises(ValueError, match=message):
        sinkhorn(**arguments)


@pytest.mark.parametrize("reg", [0.1, 1e-3])
def test_without_a_tolerance_all_iterations_are_taken_and_no_value_is_looked_at(reg, monkeypatch):
    cost, mu, nu = problem()
    counted = sinkhorn(cost, mu, nu, reg=reg, max_iter=30, tol=0.0)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: pytest.fail("a value was looked at"))
    fixed = sinkhorn(cost, mu, nu, reg=reg, max_iter=30, tol=None)
    monkeypatch.undo()
    assert torch.equal(fixed.plan, counted.plan)
    assert fixed.iterations.tolist() == [30, 30, 30]


@pytest.mark.parametrize(("reg", "iterations"), [(0.05, 2), (1e-3, 3)])
def test_the_error_is_the_distance_of_the_rows_from_mu_in_either_domain(reg, iterations):
    cost, mu, nu = problem()
    found = sinkhorn(cost, mu, nu, reg=reg, max_iter=iterations, tol=0.0)
    assert found.error.min() > 1e-3  # not converged, or there would be nothing to compare
    torch.testing.assert_close(found.error, (found.plan.sum(2) - mu).abs().sum(1), rtol=1e-4, atol=1e-6)


def test_the_log_domain_computes_in_float64_whatever_comes_in():
    cost, mu, nu = problem(regions=30, labels=6)
    single = sinkhorn(cost, mu, nu, reg=2e-4, max_iter=500, tol=0.0).plan
    double = sinkhorn(cost.double(), mu.double(), nu.double(), reg=2e-4, max_iter=500, tol=0.0).plan
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-8)
