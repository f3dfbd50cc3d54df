"""The solver in torch and, on a CPU, in C, beside the loop of the reference and POT's solver.

At the iterations that it takes, and at a hundred.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from model.ot_native import has_kernel, solve_natively
from model.ot_solver import sinkhorn
from tools.benchmarking import floor
from tools.benchmarking.comparing import Case, Rival, compared
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.reference import looped_sinkhorn

__all__ = ["Problems", "measure", "problems"]

REG, TOL, MOST = 0.1, 1e-3, 100  # MODEL.OT_REG, OT_TOL and OT_ITER
SIZES = ((32, 196, 48), (32, 196, 925), (512, 196, 1006))  # images, regions, labels
LOOP, POT = "batched loop with copies", "POT, log domain"
ITERATIONS = "iterations"
NATIVE = ", native kernel"  # follows the names of cases: MODEL.OT_SOLVER native


class Problems(NamedTuple):
    """A batch of transport problems."""

    cost: Tensor  # (B, N, C)
    mu: Tensor  # (B, N)
    nu: Tensor  # (B, C)


def measure(setting: Setting) -> Iterator[Measurement]:
    """All sizes, the largest one not in a quick measurement."""
    for size in SIZES[:2] if setting.quick else SIZES:
        yield from solved(size, setting)


def solved(size: tuple[int, int, int], setting: Setting) -> Iterator[Measurement]:
    """Problems of a size, with each its own rule to end, and all with a hundred iterations.

    POT checks by another rule, and is given as many iterations as the loop takes.
    """
    made, shape = problems(size, setting.device), " x ".join(map(str, size))
    took = sinkhorn(*made, reg=REG, max_iter=MOST, tol=TOL).iterations.float()
    _, needed = looped_sinkhorn(*made, reg=REG, max_iter=MOST, tol=TOL)
    case = f"solver, {shape}, iterations as needed"
    yield Measurement(case, ITERATIONS, "", took.tolist())
    yield Measurement(case, f"{ITERATIONS} of the loop", "", [needed])
    loop = partial(looped_sinkhorn, *made, reg=REG, max_iter=MOST)
    own = partial(sinkhorn, *made, reg=REG, max_iter=MOST)
    flop = floor.solver(1, *size[1:], iterations=1)
    native = {NATIVE: partial(solve_natively, *made, reg=REG, max_iter=MOST)} if has_kernel(setting.device) else {}
    rivals = [Rival(LOOP, (partial(loop, tol=TOL),)), Rival(POT, (_pot(made, needed),))]
    variants = {name: partial(run, tol=TOL) for name, run in native.items()}
    yield from compared(Case(case, partial(own, tol=TOL), rivals, flop * took.sum().item(), variants), setting)
    rivals = [Rival(LOOP, (partial(loop, tol=0.0),)), Rival(POT, (_pot(made, MOST),))]
    variants = {name: partial(run, tol=None) for name, run in native.items()}
    case = f"solver, {shape}, {MOST} iterations"
    yield from compared(Case(case, partial(own, tol=None), rivals, flop * size[0] * MOST, variants), setting)


def problems(size: tuple[int, int, int], device: torch.device) -> Problems:
    """Costs as those of CLIP, whose cosines of regions and labels are 0.2 +- 0.03."""
    drawn = torch.Generator().manual_seed(0)
    similarity = (0.2 + 0.03 * torch.randn(size, generator=drawn)).to(device)
    cost = 1 - (100 * similarity).softmax(-1)
    mu = (similarity.amax(-1) / 0.1).softmax(-1)
    return Problems(cost, mu, torch.full_like(similarity[:, 0], 1 / size[2]))


def _pot(made: Problems, iterations: int) -> Callable[[], object]:
    """POT's batched solver for a number of iterations, in float32 as the others."""
    import ot  # on use: it takes a second

    return partial(
        ot.solve_batch, made.cost, REG, made.mu, made.nu, max_iter=iterations, tol=0.0, method="log_sinkhorn",
        grad="detach",
    )  # fmt: skip
