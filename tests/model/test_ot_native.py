"""The C kernel against `sinkhorn`, POT in float64 and closed forms; and that `sinkhorn` solves what it leaves."""

import os
import shutil
from functools import partial

import ot
import pytest
import torch

from model import ot_native
from model.c_library import COMPILERS, CompilerError
from model.kcot import KCOT
from model.ot_native import has_kernel, solve_natively
from model.ot_solver import sinkhorn

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C compiler")


def problem(batch=3, regions=7, labels=5):
    generator = torch.Generator().manual_seed(0)
    spread = torch.linspace(0.2, 1, batch)[:, None, None]  # images that take different numbers of iterations
    cost = spread * torch.rand(batch, regions, labels, generator=generator)
    mu, nu = (torch.rand(batch, size, generator=generator).softmax(1) for size in (regions, labels))
    return cost, mu, nu


@pytest.fixture
def kernel_alone(monkeypatch):
    """Nothing is left to torch."""
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("needs a C compiler")
    monkeypatch.setattr(ot_native, "sinkhorn", lambda *_, **__: pytest.fail("torch has solved it"))


@pytest.fixture
def torch_alone(monkeypatch):
    """Nothing is solved by the kernel."""
    monkeypatch.setattr(ot_native, "_kernel", lambda: pytest.fail("the kernel was asked for"))


@pytest.fixture
def no_kernel_yet():
    ot_native._kernel.cache_clear()
    yield
    ot_native._kernel.cache_clear()


def close(found, expected, rtol=4e-6):
    """Both are within 2e-6 of float64."""
    torch.testing.assert_close(found.plan, expected.plan, rtol=rtol, atol=1e-20)
    torch.testing.assert_close(found.error, expected.error, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.iterations, expected.iterations)


SHAPES = [(1, 1, 1), (2, 1, 5), (3, 7, 1), (3, 7, 5), (2, 6, 16), (2, 5, 17), (2, 8, 33), (4, 196, 48), (1, 3, 1000)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tol", [1e-3, None])
@pytest.mark.usefixtures("kernel_alone")
def test_plans_errors_and_iterations_are_those_of_torch(shape, tol):
    made = problem(*shape)
    close(solve_natively(*made, reg=0.1, max_iter=30, tol=tol), sinkhorn(*made, reg=0.1, max_iter=30, tol=tol))


@pytest.mark.parametrize("reg", [0.0251, 0.05, 1.0, 100.0])
@pytest.mark.usefixtures("kernel_alone")
def test_regs_up_to_either_end_of_the_scaling_domain(reg):
    made = problem(regions=30, labels=20)
    close(solve_natively(*made, reg=reg), sinkhorn(*made, reg=reg), rtol=2e-5 if reg < 0.05 else 4e-6)


@pytest.mark.usefixtures("kernel_alone")
def test_plans_are_as_near_to_float64_as_those_of_torch():
    made = problem(regions=196, labels=48)
    exact = sinkhorn(*(each.double() for each in made), reg=0.1, max_iter=20, tol=None).plan
    ours, theirs = (solve(*made, reg=0.1, max_iter=20, tol=None).plan for solve in (solve_natively, sinkhorn))
    ours, theirs = (((plan - exact) / exact).abs().max() for plan in (ours, theirs))
    assert ours < 1.5 * theirs < 5e-6


@pytest.mark.usefixtures("kernel_alone")
def test_converged_plans_equal_pot_in_float64():
    cost, mu, nu = problem()
    mu, nu = (each.double() / each.double().sum(1, keepdim=True) for each in (mu, nu))
    found = solve_natively(cost, mu, nu, reg=0.1, max_iter=1000, tol=None)
    for i in range(len(cost)):
        plan = ot.sinkhorn(*(each[i].double().numpy() for each in (mu, nu, cost)), 0.1, method="sinkhorn_log",
                           numItermax=10_000, stopThr=1e-14)  # fmt: skip
        torch.testing.assert_close(found.plan[i].double(), torch.from_numpy(plan), rtol=1e-5, atol=1e-9)


@pytest.mark.usefixtures("kernel_alone")
def test_a_constant_cost_gives_the_product_of_the_marginals():
    cost, mu, nu = problem()
    found = solve_natively(torch.full_like(cost, 0.4), mu, nu, reg=0.1)
    torch.testing.assert_close(found.plan, mu[:, :, None] * nu[:, None, :])


@pytest.mark.usefixtures("kernel_alone")
def test_one_label_has_the_plan_of_the_region_weights_and_one_region_that_of_the_labels():
    cost, mu, nu = problem(labels=1)
    torch.testing.assert_close(solve_natively(cost, mu, nu, reg=0.1).plan[..., 0], mu)
    cost, mu, nu = problem(regions=1)
    torch.testing.assert_close(solve_natively(cost, mu, nu, reg=0.1).plan[:, 0], nu)


@pytest.mark.usefixtures("kernel_alone")
def test_every_image_stops_by_itself_with_a_plan_that_does_not_depend_on_its_batch():
    cost, mu, nu = problem(batch=5, regions=25, labels=9)
    together = solve_natively(cost, mu, nu, reg=0.1)
    assert len(set(together.iterations.tolist())) > 2
    for i in range(len(cost)):
        alone = solve_natively(cost[i : i + 1], mu[i : i + 1], nu[i : i + 1], reg=0.1)
        assert all(torch.equal(one[0], all_[i]) for one, all_ in zip(alone, together, strict=True))


@pytest.mark.parametrize("threads", [2, 100])
@pytest.mark.usefixtures("kernel_alone")
def test_threads_change_nothing(threads, monkeypatch):
    made = problem(batch=9, regions=25, labels=9)
    single = solve_natively(*made, reg=0.1)
    monkeypatch.setattr(ot_native, "_threads", lambda _: threads)
    assert all(torch.equal(*pair) for pair in zip(solve_natively(*made, reg=0.1), single, strict=True))


def test_there_are_as_many_threads_as_torch_has_where_there_is_enough_for_each(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    sizes = [(1, 196, 10_000), (3, 196, 925), (32, 196, 48), (32, 196, 925), (2, 7, 5)]
    assert [ot_native._threads(torch.empty(size)) for size in sizes] == [1, 3, 4, 4, 1]


@needs_compiler
def test_a_forked_process_solves_too(monkeypatch):
    monkeypatch.setattr(ot_native, "_threads", lambda _: 3)
    made = problem(batch=9)
    expected = solve_natively(*made, reg=0.1).plan
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(solve_natively(*made, reg=0.1).plan, expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.usefixtures("kernel_alone")
def test_no_image_takes_more_iterations_than_are_allowed():
    made = problem()
    for tol in (0.0, 1e-9, None):
        close(solve_natively(*made, reg=0.1, max_iter=4, tol=tol), sinkhorn(*made, reg=0.1, max_iter=4, tol=tol))


@needs_compiler
@pytest.mark.parametrize("odd", [60.0, float("inf"), float("nan")])
@pytest.mark.parametrize("tol", [1e-3, None])
def test_steep_and_broken_images_are_those_of_torch_and_the_others_are_not_touched(odd, tol):
    cost, mu, nu = problem(batch=4, regions=25, labels=9)
    usual = solve_natively(cost, mu, nu, reg=0.1, tol=tol)
    cost[[1, 3], 20, 4] = odd
    found = solve_natively(cost, mu, nu, reg=0.1, tol=tol)
    expected = sinkhorn(cost[[1, 3]], mu[[1, 3]], nu[[1, 3]], reg=0.1, tol=tol)
    for ours, before, theirs in zip(found, usual, expected, strict=True):
        assert torch.equal(ours[[0, 2]], before[[0, 2]])
        torch.testing.assert_close(ours[[1, 3]], theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("kernel_alone")
def test_nan_in_the_weights_is_not_taken_for_convergence_and_stays_in_its_image():
    cost, mu, nu = problem()
    usual = solve_natively(cost, mu, nu, reg=0.1, max_iter=20)
    mu[1, 3] = float("nan")
    found = solve_natively(cost, mu, nu, reg=0.1, max_iter=20)
    assert found.plan[1].isnan().all()
    assert found.iterations[1] == 20
    assert torch.equal(found.plan[::2], usual.plan[::2])


@pytest.mark.usefixtures("kernel_alone")
def test_half_precision_and_strides_are_solved_in_float32():
    cost, mu, nu = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solve_natively(cost.bfloat16(), mu, nu, reg=0.1)
    assert torch.equal(found.plan, solve_natively(cost.bfloat16().float(), mu, nu, reg=0.1).plan)
    strided = solve_natively(cost.mT.contiguous().mT, mu.T.contiguous().T, nu, reg=0.1)
    assert torch.equal(strided.plan, solve_natively(cost, mu, nu, reg=0.1).plan)


@pytest.mark.usefixtures("kernel_alone")
def test_arguments_are_left_as_they_were_and_no_gradient_flows():
    made = problem()
    copies = [each.clone() for each in made]
    assert not solve_natively(made[0].requires_grad_(), *made[1:], reg=0.1).plan.requires_grad
    assert all(torch.equal(each.detach(), copy) for each, copy in zip(made, copies, strict=True))


@pytest.mark.parametrize(
    ("dtype", "images", "how"), [(torch.float64, 3, {}), (torch.float32, 0, {}), (torch.float32, 3, {"reg": 0.02})]
)
@pytest.mark.usefixtures("torch_alone")
def test_what_the_kernel_does_not_cover_is_solved_in_torch(dtype, images, how):
    made, how = [each[:images].to(dtype) for each in problem()], {"reg": 0.1, "tol": None} | how
    found, expected = solve_natively(*made, **how), sinkhorn(*made, **how)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.usefixtures("torch_alone")
def test_what_is_compiled_by_torch_is_torchs(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    made = problem()
    assert torch.equal(solve_natively(*made, reg=0.1).plan, sinkhorn(*made, reg=0.1).plan)


@pytest.mark.parametrize("elsewhere", [0, 1, 2])
@pytest.mark.usefixtures("torch_alone")
def test_tensors_of_another_device_are_torchs(elsewhere, monkeypatch):
    monkeypatch.setattr(ot_native, "sinkhorn", lambda *_, **how: how)
    made = [each.to("meta") if place == elsewhere else each for place, each in enumerate(problem())]
    assert solve_natively(*made, reg=0.1, tol=None) == {"reg": 0.1, "max_iter": 100, "tol": None}


def test_arguments_out_of_range_are_refused():
    cost, mu, nu = problem()
    with pytest.raises(ValueError, match="reg must be positive"):
        solve_natively(cost, mu, nu, reg=0.0)
    with pytest.raises(ValueError, match=r"\(3, 6\)"):
        solve_natively(cost, mu[:, :6], nu, reg=0.1)


@pytest.mark.usefixtures("no_kernel_yet")
def test_without_a_compiler_torch_solves_after_one_warning(monkeypatch):
    def none(_):
        raise CompilerError("there is no C compiler here (cc)")

    monkeypatch.setattr(ot_native, "shared_library", none)
    made = problem()
    with pytest.warns(UserWarning, match=r"MODEL.OT_SOLVER native: there is no .* \(cc\); torch solves in its place"):
        found = solve_natively(*made, reg=0.1)
    assert torch.equal(found.plan, sinkhorn(*made, reg=0.1).plan)
    assert torch.equal(solve_natively(*made, reg=0.1).plan, found.plan)  # warnings are errors here
    assert not has_kernel(torch.device("cpu"))


@needs_compiler
def test_there_is_a_kernel_for_cpus_only():
    assert has_kernel(torch.device("cpu"))
    assert not has_kernel(torch.device("cuda"))


@pytest.mark.parametrize("teacher", [True, False])
@pytest.mark.usefixtures("kernel_alone")
def test_matchings_of_kcot_are_the_same_with_either_solver(teacher):
    similarity = 0.2 + 0.03 * problem()[0]
    assignment, targets = problem()[0].softmax(1), torch.tensor([[0, 1, -1, 0, 1], [0] * 5, [1] * 5])
    known = (assignment, targets) if teacher else ()
    ours, theirs = (
        KCOT(scale=100.0, reg=0.1, reg_teacher=0.05, presence_temperature=0.1, solve=partial(solve))(similarity, *known)
        for solve in (solve_natively, sinkhorn)
    )
    torch.testing.assert_close(ours.plan, theirs.plan, rtol=4e-6, atol=0)
    assert torch.equal(ours.diagnostics["solver_iterations"], theirs.diagnostics["solver_iterations"])
