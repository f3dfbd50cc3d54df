"""Sinkhorn on a CPU by a C kernel, `ot_native.c`, which the machine's compiler makes at the first call.

MODEL.OT_SOLVER native puts `solve_natively` in the place of `sinkhorn`: the same plans up to rounding, in less time
where iterations are what counts. Where there is no compiler, `sinkhorn` solves.

B images, N regions, C labels.
"""

import ctypes
import math
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from model.c_library import CompilerError, shared_library
from model.ot_solver import LARGEST_EXPONENT, TransportPlan, sinkhorn, validate

__all__ = ["has_kernel", "solve_natively"]

SOURCE = Path(__file__).with_name("ot_native.c")
ENOUGH = 2**16  # numbers of K for which a thread is worth starting


def has_kernel(device: torch.device) -> bool:
    """Whether `solve_natively` solves by the kernel there; a warning says why not on a CPU."""
    return device.type == "cpu" and _kernel() is not None


@torch.no_grad()
def solve_natively(
    cost: Tensor, mu: Tensor, nu: Tensor, *, reg: float, max_iter: int = 100, tol: float | None = 1e-3
) -> TransportPlan:
    """What `sinkhorn` gives with stop "image", within its rounding.

    By the kernel in float32, and by `sinkhorn` itself what the kernel does not cover: other devices than CPUs, float64,
    images whose exp(-cost / reg) could leave the range of float32 or whose cost is NaN, and machines without a
    compiler, which are told of by one warning. Takes as many threads as torch does.

    Args:
        cost: see `sinkhorn`.
        mu: likewise.
        nu: likewise.
        reg: likewise.
        max_iter: likewise.
        tol: likewise.

    Raises:
        ValueError: see `sinkhorn`.
    """
    validate(cost, mu, nu, reg, max_iter, "image")
    kernel = _kernel() if _is_covered(cost, mu, nu) and not _is_steep(reg, tol) else None
    if kernel is None:
        return sinkhorn(cost, mu, nu, reg=reg, max_iter=max_iter, tol=tol)
    cost, mu, nu = (each.float().contiguous() for each in (cost, mu, nu))
    count = torch.zeros(len(cost), dtype=torch.int64)  # stays 0 where an image is left
    found = TransportPlan(torch.empty_like(cost), mu.new_empty(len(mu)), count)
    kernel(
        *(each.data_ptr() for each in (cost, mu, nu, *found)), *cost.shape, max_iter, -1 / (reg * math.log(2)),
        LARGEST_EXPONENT * reg, -1.0 if tol is None else tol * cost.shape[1], _threads(cost),
    )  # fmt: skip
    if (left := count == 0).any():
        rest = sinkhorn(cost[left], mu[left], nu[left], reg=reg, max_iter=max_iter, tol=tol)
        for whole, solved in zip(found, rest, strict=True):
            whole[left] = solved
    return found


def _is_covered(cost: Tensor, mu: Tensor, nu: Tensor) -> bool:
    """Whether the kernel can read them."""
    here = all(each.device.type == "cpu" for each in (cost, mu, nu)) and not torch.compiler.is_compiling()
    return here and cost.dtype != torch.float64 and cost.numel() > 0


def _is_steep(reg: float, tol: float | None) -> bool:
    """Whether `sinkhorn` takes the log domain without looking at the costs."""
    return tol is None and reg * LARGEST_EXPONENT < 1


def _threads(cost: Tensor) -> int:
    """As many as torch computes with, as far as there is something to do for each."""
    return max(1, min(torch.get_num_threads(), len(cost), cost.numel() // ENOUGH))


@cache
def _kernel() -> Callable[..., None] | None:
    """The function of the library, called without the interpreter's lock; None, with a warning, if there is none."""
    try:
        kernel = shared_library(SOURCE).sinkhorn
    except CompilerError as error:
        warnings.warn(f"MODEL.OT_SOLVER native: {error}; torch solves in its place", stacklevel=3)
        return None
    pointers, counts = [ctypes.c_void_p] * 6, [ctypes.c_int64] * 4
    kernel.argtypes = [*pointers, *counts, ctypes.c_float, ctypes.c_float, ctypes.c_double, ctypes.c_int64]
    kernel.restype = None
    return kernel
