"""KCOT piece by piece against NumPy, and with and without its parts against reference plans."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from model.kcot import KCOT, label_presence, teacher_assignment, transfer_knowledge
from model.matchers import matching_cost
from model.ot_native import solve_natively
from model.ot_solver import sinkhorn

REFERENCE = np.load(Path(__file__).parents[1] / "data" / "matchers_reference.npz")
PARTS = {"ot": (False, False), "ot_lpd": (True, False), "ot_tkt": (False, True), "kcot": (True, True)}


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def similarities(seed=0):
    return 0.4 * torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(seed)) - 0.1


def kcot(*, max_iter=100, tol=1e-3, **changes):
    settings = {"scale": 100.0, "reg": 0.1, "reg_teacher": 0.05, "presence_temperature": 0.1,
                "solve": partial(sinkhorn, max_iter=max_iter, tol=tol, stop="image")}  # fmt: skip
    return KCOT(**settings | changes)


def referenced(name, dtype=torch.float64):
    return torch.from_numpy(REFERENCE[name].astype(np.float64)).to(dtype)


@pytest.mark.filterwarnings("ignore:MODEL.OT_SOLVER native")  # torch solves where there is no compiler
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize(("iterations", "suffix"), [(5, "5"), (100, "100"), (2000, "converged")])
@pytest.mark.parametrize(
    ("solve", "dtype", "limit"),
    [(sinkhorn, torch.float64, 1e-12), (sinkhorn, torch.float32, 1e-4), (solve_natively, torch.float32, 1e-4)],
)
def test_plans_are_the_reference_plans(monkeypatch, name, iterations, suffix, solve, dtype, limit):
    monkeypatch.setattr("model.kcot.label_presence", lambda *_: referenced("in/marginal_regions", dtype))  # given there
    presence, teacher = PARTS[name]
    parts = {"presence_temperature": 0.1 if presence else None, "reg_teacher": 0.05 if teacher else None}
    matcher = kcot(solve=partial(solve, max_iter=iterations, tol=0.0), **parts)
    s, q, targets = (referenced(f"in/{key}", dtype) for key in ("similarities", "teacher", "targets"))
    found, expected = matcher(s, q, targets).plan, referenced(f"out/plan.{name}.{suffix}")
    assert torch.equal(matcher(s).mu == 1 / 12, torch.full((2, 12), not presence))
    assert ((found.double() - expected).norm() / expected.norm()).item() < limit


def test_costs_are_the_reference_ones():
    s, q, targets = (referenced(f"in/{key}") for key in ("similarities", "teacher", "targets"))
    match = kcot()(s, q, targets)
    torch.testing.assert_close(match.cost, referenced("out/cost_teacher"))
    torch.testing.assert_close(kcot(reg_teacher=None)(s, q, targets).cost, referenced("out/cost"))


def test_without_a_teacher_training_solves_the_problem_of_the_test():
    s, q = similarities(), torch.rand(2, 6, 4).softmax(1)
    matcher = kcot(reg_teacher=None)
    assert not matcher.needs_teacher
    assert torch.equal(matcher(s, q, torch.ones(2, 4)).plan, matcher(s).plan)
    assert matcher(s, q, torch.ones(2, 4)).reg == 0.1


def test_cost_is_one_minus_the_softmax_over_labels():
    s = similarities()
    expected = 1 - softmax(100 * s.double().numpy(), 2)
    np.testing.assert_allclose(matching_cost(s, 100.0).numpy(), expected, atol=1e-5)


def test_presence_is_the_softmax_over_regions_of_the_best_label():
    s = similarities()
    expected = softmax(s.double().numpy().max(2) / 0.1, 1)
    np.testing.assert_allclose(label_presence(s, 0.1).numpy(), expected, rtol=1e-5)


def test_teacher_assignment_is_a_softmax_over_labels_then_over_regions():
    generator = torch.Generator().manual_seed(0)
    regions, labels = torch.randn(2, 6, 8, generator=generator), torch.randn(4, 8, generator=generator)
    r, t = (x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=-1, keepdims=True) for x in (regions, labels))
    expected = softmax(20 * softmax(100 * (r @ t.T), 2), 1)
    found = teacher_assignment(3 * regions, labels / 7, scale=100.0, sharpness=20.0)  # norms do not matter
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4)


def test_knowledge_lowers_the_cost_of_present_labels_only_beyond_a_constant():
    cost, q = torch.rand(2, 6, 4), torch.rand(2, 6, 4).softmax(1)
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    change = transfer_knowledge(cost, q, targets, 0.05) - cost
    present = targets[:, None, :].expand(2, 6, 4) > 0
    torch.testing.assert_close(change[present], -0.05 * q.log()[present])
    torch.testing.assert_close(change[~present], torch.full_like(change[~present], -0.05 * q.min().log().item()))


def test_reg_is_lambda_1_at_test_and_the_sum_of_both_with_targets():
    s, q = similarities(), torch.rand(2, 6, 4).softmax(1)
    assert kcot()(s).reg == 0.1
    assert abs(kcot()(s, q, torch.ones(2, 4)).reg - 0.15) < 1e-12


def test_columns_of_the_plan_sum_to_one_over_the_number_of_labels():
    match = kcot()(similarities())
    torch.testing.assert_close(match.plan.sum(1), torch.full((2, 4), 0.25))


def test_plan_favours_the_regions_that_the_teacher_names():
    s, q = torch.zeros(1, 5, 3), torch.full((1, 5, 3), 0.05)
    q[0, 2, 1] = 0.8
    plan = kcot()(s, q, torch.tensor([[0, 1, 0]])).plan[0]
    assert plan[:, 1].argmax() == 2
    assert plan[2, 1] > 1.5 * plan[0, 1]
    assert plan[2, 0] < plan[0, 0]


def test_of_labels_that_are_not_known_the_teacher_is_silent():
    s, q = similarities(), torch.rand(2, 6, 4).softmax(1)
    targets = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]])
    unknown = torch.tensor([[1, 0, -1, -1], [-1, 1, 0, -1]])
    known_parts_alone = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]])
    plan = kcot()(s, q, unknown).plan
    assert torch.equal(plan, kcot()(s, q, known_parts_alone).plan)
    assert not torch.allclose(plan, kcot()(s, q, targets).plan)


def test_no_gradient_flows_through_the_matching():
    s, q = similarities().requires_grad_(), torch.rand(2, 6, 4, requires_grad=True).softmax(1)
    match = kcot()(s, q, torch.ones(2, 4))
    assert not any(part.requires_grad for part in (match.plan, match.cost, match.mu, *match.diagnostics.values()))


def test_no_gradient_flows_to_the_teacher():
    regions, labels = torch.randn(2, 6, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    assert not teacher_assignment(regions, labels, scale=100.0, sharpness=20.0).requires_grad
