"""Batched Sinkhorn: entropic optimal transport between regions and labels, one problem per image.

Minimises <T, cost> + reg * sum T (log T - 1) subject to T 1 = mu and T^T 1 = nu (RAM, CVPR 2025, Eq. (1)
and (12); Cuturi 2013). With K = exp(-cost / reg), from a = b = 1:

    a = mu / (K b),   b = nu / (K^T a),   T = diag(a) K diag(b)

b is updated last, so columns sum to nu up to rounding and rows to mu approximately.

B images, N regions, C labels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from parallel import anywhere

__all__ = ["TransportPlan", "sinkhorn", "validate"]

# |cost| / reg up to which exp(-cost / reg), the scalings and their products stay far from float32's limits (e^88).
LARGEST_EXPONENT = 40.0
# Bytes of K that a CPU iterates on at once. 100 iterations of 32 x 196 x 925 on a core with 1 MB of L2 and a share in
# 32 MB of L3: 127 ms with 4 MB, 166 image by image (calls of torch count), 353 with all at once (K comes from memory).
BLOCK = 4 * 2**20


class TransportPlan(NamedTuple):
    """What `sinkhorn` returns."""

    plan: Tensor  # (B, N, C), non-negative, columns sum to nu
    error: Tensor  # (B,), sum over regions of |row sum - mu|
    iterations: Tensor  # (B,), int64


class _Rule(NamedTuple):
    """When to stop; see `sinkhorn`."""

    max_iter: int
    tol: float | None
    stop: str


@torch.no_grad()
def sinkhorn(
    cost: Tensor, mu: Tensor, nu: Tensor, *, reg: float, max_iter: int = 100, tol: float | None = 1e-3,
    stop: str = "image",
) -> TransportPlan:  # fmt: skip
    """Entropic transport plans from regions to labels, without gradient and outside autocast.

    Computes in float32, or in float64 for float64 costs. Images whose exp(-cost / reg) could leave the range
    of float32 are solved in the log domain and float64, to the same fixed point.

    Args:
        cost: (B, N, C), finite, dimensionless.
        mu: (B, N), positive, rows sum to 1.
        nu: (B, C), positive, rows sum to 1.
        reg: weight of the entropy, in units of `cost`; > 0.
        max_iter: upper bound on iterations; at least 1.
        tol: an image stops after the iteration in which the mean over regions of |a - previous a| is below this.
            In the log domain, where a may be of any size, the mean relative change has to be below it too.
            None: all images take `max_iter` iterations, and no value is looked at (for `torch.export`, and GPUs that
            would wait for the answer); the log domain is then chosen by `reg` alone, below 1/40, for costs in [0, 1].
        stop: "image": every image stops by itself, so that its plan does not depend on its batch;
            "batch": all go on until the last one is done, as in the authors' release.

    Returns:
        plan (B, N, C), error (B,), iterations (B,). Rows of the plan sum to mu within `error`.

    Raises:
        ValueError: if shapes disagree, or a number is out of its range.
    """
    validate(cost, mu, nu, reg, max_iter, stop)
    dtype = torch.promote_types(cost.dtype, torch.float32)
    with torch.autocast(cost.device.type, enabled=False):
        cost, mu, nu = cost.to(dtype), mu.to(dtype), nu.to(dtype)
        plan, error = torch.empty_like(cost, memory_format=torch.contiguous_format), torch.empty_like(mu[:, 0])
        found = TransportPlan(plan, error, torch.empty_like(error, dtype=torch.int64))
        for images in _blocks(cost, stop):
            part = TransportPlan(*(whole[images] for whole in found))
            _solve(part, cost[images], mu[images], nu[images], reg, _Rule(max_iter, tol, stop))
        return found


def validate(cost: Tensor, mu: Tensor, nu: Tensor, reg: float, max_iter: int, stop: str) -> None:
    """Raises ValueError where `sinkhorn` says that it does."""
    if cost.ndim != 3 or mu.shape != cost.shape[:2] or nu.shape != cost.shape[::2]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (cost, mu, nu))
        raise ValueError(f"cost, mu, nu must be (B, N, C), (B, N), (B, C), not {shapes}")
    if not reg > 0:
        raise ValueError(f"reg must be positive, not {reg}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, not {max_iter}")
    if stop not in ("image", "batch"):
        raise ValueError(f"stop must be 'image' or 'batch', not {stop!r}")


def _blocks(cost: Tensor, stop: str) -> list[slice]:
    """Images that iterate together: as many as a CPU's caches hold; all of them elsewhere, or if they have to wait."""
    if cost.device.type != "cpu" or stop == "batch" or torch.compiler.is_compiling():
        return [slice(None)]
    size = max(1, BLOCK // (cost.shape[1] * cost.shape[2] * cost.element_size()))
    return [slice(first, first + size) for first in range(0, len(cost), size)]


def _solve(found: TransportPlan, cost: Tensor, mu: Tensor, nu: Tensor, reg: float, rule: _Rule) -> None:
    """Fills `found`, each image in the domain that its cost asks for."""
    if rule.tol is None:
        solve = _log_domain if reg * LARGEST_EXPONENT < 1 else _scaling
        solve(found, cost, mu, nu, reg, rule)
        return
    steep = torch.maximum(cost.amax((1, 2)), -cost.amin((1, 2))) > LARGEST_EXPONENT * reg  # (B,)
    if rule.stop == "batch":
        steep = anywhere(steep).expand_as(steep)  # images that wait for each other count the same iterations
    if not steep.any():  # host-device sync
        _scaling(found, cost, mu, nu, reg, rule)
    elif steep.all():
        _log_domain(found, cost, mu, nu, reg, rule)
    else:
        for solve, images in ((_scaling, ~steep), (_log_domain, steep)):
            part = TransportPlan(*(whole[images] for whole in found))
            solve(part, cost[images], mu[images], nu[images], reg, rule)
            for whole, solved in zip(found, part, strict=True):
                whole[images] = solved


def _scaling(found: TransportPlan, cost: Tensor, mu: Tensor, nu: Tensor, reg: float, rule: _Rule) -> None:
    # In the place of the plan, so that it is written once. On a CPU exp2 takes a third of the time of exp.
    kernel = torch.mul(cost, -1 / (reg * math.log(2)), out=found.plan).exp2_()  # (B, N, C)
    transposed, mu, nu = kernel.transpose(1, 2), mu[:, None, :], nu[:, None, :]

    def step(b: Tensor) -> tuple[Tensor, Tensor]:
        # Vectors on the left: with b on the right of so many matrices bmm takes up to 14 times as long on a CPU.
        a = mu / torch.bmm(b, transposed)
        return a, nu / torch.bmm(a, kernel)

    def change(new_a: Tensor, a: Tensor) -> Tensor:
        return (new_a - a).abs_().sum((1, 2))

    a, b, iterations = _iterate(step, change, torch.ones_like(mu), torch.ones_like(nu), rule)
    found.error.copy_((a * torch.bmm(b, transposed) - mu).abs_().sum((1, 2)))
    found.iterations.copy_(iterations)
    kernel.mul_(a.transpose(1, 2)).mul_(b)


def _log_domain(found: TransportPlan, cost: Tensor, mu: Tensor, nu: Tensor, reg: float, rule: _Rule) -> None:
    """The same iteration on log a and log b; float64, since float32 resolves a potential of 1000 to 1e-4 only."""
    exponent = -cost.double() / reg  # (B, N, C)
    log_mu, log_nu = mu.double().log()[:, None, :], nu.double().log()[:, None, :]

    def step(log_b: Tensor) -> tuple[Tensor, Tensor]:
        log_a = log_mu - torch.logsumexp(exponent + log_b, 2)[:, None, :]
        return log_a, log_nu - torch.logsumexp(exponent + log_a.transpose(1, 2), 1, keepdim=True)

    def change(new_a: Tensor, log_a: Tensor) -> Tensor:
        relative = torch.expm1(new_a - log_a).abs().sum((1, 2))
        return torch.maximum(relative, (new_a.exp() - log_a.exp()).abs().sum((1, 2)))  # NaN where a overflows: goes on

    log_a, log_b, iterations = _iterate(step, change, torch.zeros_like(log_mu), torch.zeros_like(log_nu), rule)
    plan = torch.exp(log_a.transpose(1, 2) + exponent + log_b)
    found.plan.copy_(plan)
    found.error.copy_((plan.sum(2) - mu).abs().sum(1))
    found.iterations.copy_(iterations)


def _iterate(
    step: Callable[[Tensor], tuple[Tensor, Tensor]], change: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor,
    rule: _Rule,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The scalings (B, 1, N) and (B, 1, C), or their logarithms, and how many iterations each image took (B,)."""
    if rule.tol is None:
        for _ in range(rule.max_iter):
            a, b = step(b)
        return a, b, torch.full_like(a[:, 0, 0], rule.max_iter, dtype=torch.int64)
    limit = rule.tol * a.shape[2]  # of the sum over regions: on a CPU mean takes twice the time of sum
    running, taken = [True] * len(a), [0] * len(a)
    for _ in range(rule.max_iter):
        new_a, new_b = step(b)
        changes = change(new_a, a)  # (B,)
        if not all(running):
            moves = torch.tensor(running, device=a.device)[:, None, None]
            new_a, new_b = torch.where(moves, new_a, a), torch.where(moves, new_b, b)
        a, b = new_a, new_b
        taken = [count + one for count, one in zip(taken, running, strict=True)]
        # Not `>=`, so that NaN is not taken for convergence; a host-device sync either way.
        if rule.stop == "batch":
            goes_on = bool(anywhere(~(changes < limit)))
        else:
            running = [one and not each < limit for one, each in zip(running, changes.tolist(), strict=True)]
            goes_on = any(running)
        if not goes_on:
            break
    return a, b, torch.tensor(taken, device=a.device)
