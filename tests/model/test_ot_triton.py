"""The fused kernel against KCOT in torch, through Triton's interpreter.

The interpreter has to be chosen before Triton is imported, which torch may have done already in the process of the
tests: this file is also the script of a process of its own, which computes the results that the tests look at.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from model import ot_triton
from model.kcot import KCOT
from model.matchers import MatchingError
from model.ot_solver import sinkhorn
from model.ot_triton import FusedKCOT, Teaching, transport

ROOT = Path(__file__).parents[2]
SIZE = (3, 7, 5)  # no powers of 2
PARTS = {"ot": (False, False), "ot_lpd": (True, False), "ot_tkt": (False, True), "kcot": (True, True)}
TILES = {"one": 8192, "two": 32, "seven": 1}  # so many make up an image
ASKED = [(False, False), (True, False), (False, True)]  # plan, pooled


def problem(labels=SIZE[2]):
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.001, 0.01, 0.02])[:, None, None]  # images that take different numbers of iterations
    similarity = 0.2 + spread * torch.rand(*SIZE[:2], labels, generator=generator)
    assignment = (5 * torch.rand(*SIZE[:2], labels, generator=generator)).softmax(1)
    return similarity, assignment, torch.tensor([[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 1, 1]])


def settings(parts, **changes):
    presence, teacher = PARTS[parts]
    values = {"scale": 100.0, "reg": 0.1, "reg_teacher": 0.05 if teacher else None,
              "presence_temperature": 0.1 if presence else None, "max_iter": 100, "tol": 0.1}  # fmt: skip
    return values | changes


def fused(parts, **changes):
    return FusedKCOT(**settings(parts, **changes))


def kcot(parts, **changes):
    values = settings(parts, **changes)
    rule = {name: values.pop(name) for name in ("max_iter", "tol")}
    return KCOT(**values, solve=partial(sinkhorn, **rule))


def computed():
    """Everything that the tests look at, by name."""
    found = {"imported": "model.ot_triton_kernel" in sys.modules}
    similarity, assignment, targets = inputs = problem()
    for tiles, size in TILES.items():
        ot_triton.TILE = size
        found[tiles] = fused("kcot")(*inputs)
    ot_triton.TILE = TILES["two"]
    found |= {parts: fused(parts)(*inputs) for parts in PARTS}
    found["inputs"] = inputs
    found["test"] = fused("kcot")(similarity)
    found["strides"] = fused("kcot")(*(t.mT.contiguous().mT for t in inputs[:2]), targets.bool())
    found["half"] = fused("kcot")(similarity.bfloat16(), assignment.bfloat16(), targets)
    found["one label"] = fused("kcot")(similarity[..., :1])
    found["none"] = fused("kcot")(similarity[:0])
    found["two at most"] = fused("kcot", max_iter=2, tol=1e-9)(similarity)
    found["no tolerance"] = fused("kcot", max_iter=5, tol=None)(similarity)
    found["broken"] = fused("kcot", max_iter=9)(torch.cat([similarity[1:], similarity[:1] * float("nan")]))
    arguments = {"scale": 100.0, "reg": 0.15, "presence_temperature": 0.1, "max_iter": 100, "tol": 0.1}
    for asked in ASKED:
        plan, pooled = asked
        teaching = Teaching(assignment, targets, 0.05)
        found[asked] = transport(similarity, **arguments, teaching=teaching, plan=plan, pooled=pooled)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    pytest.importorskip("triton")
    path = tmp_path_factory.mktemp("interpreter") / "found.pt"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, path], env=environment, check=True, cwd=ROOT)
    return torch.load(path, weights_only=False)


def close(matching, expected):
    torch.testing.assert_close(matching.plan, expected.plan, rtol=2e-5, atol=1e-9)
    torch.testing.assert_close(matching.mu, expected.mu, rtol=1e-5, atol=0)
    diagnostics = expected.diagnostics
    assert matching.diagnostics["solver_iterations"].tolist() == diagnostics["solver_iterations"].tolist()
    torch.testing.assert_close(matching.diagnostics["solver_error"], diagnostics["solver_error"], rtol=1e-3, atol=1e-6)
    assert matching.reg == expected.reg


@pytest.mark.parametrize("name", [*PARTS, *TILES])
def test_matchings_are_those_of_kcot(found, name):
    close(found[name], kcot(name if name in PARTS else "kcot")(*problem()))


def test_without_a_teacher_the_problem_is_that_of_the_test(found):
    close(found["test"], kcot("kcot")(problem()[0]))


def test_every_image_stops_by_itself(found):
    assert len(set(found["test"].diagnostics["solver_iterations"].tolist())) == 3


def test_neither_the_dtype_of_targets_nor_strides_matter(found):
    assert torch.equal(found["strides"].plan, found["two"].plan)


def test_half_precision_is_solved_in_float32(found):
    similarity, assignment, targets = problem()
    close(found["half"], kcot("kcot")(similarity.bfloat16().float(), assignment.bfloat16().float(), targets))


def test_one_label_takes_its_plan_from_the_region_weights(found):
    close(found["one label"], kcot("kcot")(problem()[0][..., :1]))


def test_no_images_have_no_plans(found):
    assert found["none"].plan.shape == (0, 7, 5)


def test_no_image_takes_more_iterations_than_are_allowed(found):
    close(found["two at most"], kcot("kcot", max_iter=2, tol=1e-9)(problem()[0]))


def test_without_a_tolerance_all_iterations_are_taken(found):
    close(found["no tolerance"], kcot("kcot", max_iter=5, tol=None)(problem()[0]))


def test_nan_is_not_taken_for_convergence_and_stays_in_its_image(found):
    plan, iterations = found["broken"].plan, found["broken"].diagnostics["solver_iterations"]
    assert plan[2].isnan().all()
    assert iterations.tolist() == [*found["test"].diagnostics["solver_iterations"][1:].tolist(), 9]
    assert torch.equal(plan[:2], found["test"].plan[1:])


@pytest.mark.parametrize("asked", ASKED)
def test_only_what_is_asked_for_is_given(found, asked):
    solved, expected = found[asked], kcot("kcot")(*problem())
    assert (solved.plan is not None, solved.pooled is not None) == asked
    assert torch.equal(solved.iterations, expected.diagnostics["solver_iterations"])
    if solved.plan is not None:
        torch.testing.assert_close(solved.plan, expected.plan, rtol=2e-5, atol=1e-9)
    if solved.pooled is not None:
        torch.testing.assert_close(solved.pooled, (expected.plan * problem()[0]).sum(1), rtol=1e-5, atol=0)


def test_arguments_are_left_as_they_were(found):
    assert all(torch.equal(after, before) for after, before in zip(found["inputs"], problem(), strict=True))


def test_the_kernel_is_imported_when_it_is_run(found):
    assert not found["imported"]


@pytest.mark.parametrize(
    ("changes", "dtype", "largest"),
    [({}, torch.float64, 8192), ({"reg": 0.02, "reg_teacher": None}, torch.float32, 8192), ({}, torch.float32, 6)],
)
def test_what_the_kernel_does_not_cover_is_solved_in_torch(changes, dtype, largest, monkeypatch):
    monkeypatch.setattr(ot_triton, "LARGEST", largest)
    similarity, assignment, targets = problem()
    inputs = similarity.to(dtype), assignment.to(dtype), targets
    assert torch.equal(fused("kcot", **changes)(*inputs).plan, kcot("kcot", **changes)(*inputs).plan)


def test_without_a_cuda_device_it_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(MatchingError, match="runs on CUDA devices, not on cpu: MODEL.OT_SOLVER sinkhorn"):
        fused("kcot")(problem()[0])


def test_without_triton_it_is_refused(monkeypatch):
    monkeypatch.setattr(ot_triton, "find_spec", lambda _: None)
    with pytest.raises(MatchingError, match="needs the package triton, which is not installed here"):
        fused("kcot")(problem()[0])


def test_what_was_trained_with_it_is_tested_without_it_after_a_warning(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    similarity = problem()[0]
    with pytest.warns(UserWarning, match=r"MODEL.OT_SOLVER triton .*: torch solves in its place"):
        found = fused("kcot").eval()(similarity)
    assert torch.equal(found.plan, kcot("kcot")(similarity).plan)


if __name__ == "__main__":
    torch.save(computed(), sys.argv[1])
