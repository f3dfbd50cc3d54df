"""Batched Sinkhorn: entropic optimal transport between regions and labels, one problem per image.

Minimises <T, cost> + reg * sum T (log T - 1) subject to T 1 = mu and T^T 1 = nu (RAM, CVPR 2025, Eq. (1)
and (12); Cuturi 2013). With K = exp(-cost / reg), from a = b = 1:

    a = mu / (K b),   b = nu / (K^T a),   T = diag(a) K diag(b)

b is updated last, so columns sum to nu up to rounding and rows to mu approximately.

B images, N regions, C labels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from parallel import anywhere

__all__ = ["TransportPlan", "sinkhorn"]

# |cost| / reg up to which exp(-cost / reg), the scalings and their products stay far from float32's limits (e^88).
LARGEST_EXPONENT = 40.0


class TransportPlan(NamedTuple):
    """What `sinkhorn` returns."""

    plan: Tensor  # (B, N, C), non-negative, columns sum to nu
    error: Tensor  # (B,), sum over regions of |row sum - mu|
    iterations: Tensor  # (B,), int64


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
    _validate(cost, mu, nu, reg, max_iter, stop)
    dtype = torch.promote_types(cost.dtype, torch.float32)
    with torch.autocast(cost.device.type, enabled=False):
        cost, mu, nu = cost.to(dtype), mu.to(dtype), nu.to(dtype)
        if tol is None:
            solve = _log_domain if reg * LARGEST_EXPONENT < 1 else _scaling
            return solve(cost, mu, nu, reg, max_iter, tol, stop)
        steep = cost.abs().amax((1, 2)) > LARGEST_EXPONENT * reg  # (B,)
        if stop == "batch":
            steep = anywhere(steep).expand_as(steep)  # images that wait for each other count the same iterations
        if not steep.any():  # host-device sync
            return _scaling(cost, mu, nu, reg, max_iter, tol, stop)
        if steep.all():
            return _log_domain(cost, mu, nu, reg, max_iter, tol, stop)
        parts = [
            solve(cost[rows], mu[rows], nu[rows], reg, max_iter, tol, stop)
            for solve, rows in ((_scaling, ~steep), (_log_domain, steep))
        ]
        order = torch.cat([(~steep).nonzero(), steep.nonzero()]).squeeze(1).argsort()
        return TransportPlan(*(torch.cat(pair)[order] for pair in zip(*parts, strict=True)))


def _validate(cost: Tensor, mu: Tensor, nu: Tensor, reg: float, max_iter: int, stop: str) -> None:
    if cost.ndim != 3 or mu.shape != cost.shape[:2] or nu.shape != cost.shape[::2]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (cost, mu, nu))
        raise ValueError(f"cost, mu, nu must be (B, N, C), (B, N), (B, C), not {shapes}")
    if not reg > 0:
        raise ValueError(f"reg must be positive, not {reg}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, not {max_iter}")
    if stop not in ("image", "batch"):
        raise ValueError(f"stop must be 'image' or 'batch', not {stop!r}")


def _scaling(
    cost: Tensor, mu: Tensor, nu: Tensor, reg: float, max_iter: int, tol: float | None, stop: str
) -> TransportPlan:
    kernel = torch.exp(-cost / reg)  # (B, N, C)
    a, b = torch.ones_like(mu), torch.ones_like(nu)
    progress = _Progress(mu, tol, stop)
    for _ in range(max_iter):
        new_a = mu / _rows(kernel, b)
        new_b = nu / _columns(kernel, new_a)
        change = (new_a - a).abs().mean(1)
        a, b = progress.moved(a, new_a), progress.moved(b, new_b)
        if progress.finished_after(change):
            break
    plan = a[:, :, None] * kernel * b[:, None, :]
    return TransportPlan(plan, (plan.sum(2) - mu).abs().sum(1), progress.iterations)


def _log_domain(
    cost: Tensor, mu: Tensor, nu: Tensor, reg: float, max_iter: int, tol: float | None, stop: str
) -> TransportPlan:
    """The same iteration on log a and log b; float64, since float32 resolves a potential of 1000 to 1e-4 only."""
    exponent = -cost.double() / reg  # (B, N, C)
    log_mu, log_nu = mu.double().log(), nu.double().log()
    log_a, log_b = torch.zeros_like(log_mu), torch.zeros_like(log_nu)
    progress = _Progress(mu, tol, stop)
    for _ in range(max_iter):
        new_a = log_mu - torch.logsumexp(exponent + log_b[:, None, :], 2)
        new_b = log_nu - torch.logsumexp(exponent + new_a[:, :, None], 1)
        relative = torch.expm1(new_a - log_a).abs().mean(1)
        change = torch.maximum(relative, (new_a.exp() - log_a.exp()).abs().mean(1))  # NaN where a overflows: goes on
        log_a, log_b = progress.moved(log_a, new_a), progress.moved(log_b, new_b)
        if progress.finished_after(change):
            break
    plan = torch.exp(log_a[:, :, None] + exponent + log_b[:, None, :])
    error = (plan.sum(2) - mu).abs().sum(1)
    return TransportPlan(plan.to(cost.dtype), error.to(cost.dtype), progress.iterations)


def _rows(kernel: Tensor, b: Tensor) -> Tensor:
    """K b: (B, N)."""
    return torch.bmm(kernel, b[:, :, None]).squeeze(2)


def _columns(kernel: Tensor, a: Tensor) -> Tensor:
    """K^T a: (B, C)."""
    return torch.bmm(a[:, None, :], kernel).squeeze(1)


class _Progress:
    """Which images still iterate, and how many iterations each has taken."""

    def __init__(self, mu: Tensor, tol: float | None, stop: str) -> None:
        self.running = torch.ones_like(mu[:, 0], dtype=torch.bool)  # (B,)
        self.iterations = torch.zeros_like(mu[:, 0], dtype=torch.int64)
        self.tol, self.stop = tol, stop

    def moved(self, old: Tensor, new: Tensor) -> Tensor:
        """The scalings (B, N or C) after an iteration: those of images that are done stay."""
        return new if self.tol is None else torch.where(self.running[:, None], new, old)

    def finished_after(self, change: Tensor) -> bool:
        """Takes note of an iteration whose scalings changed by `change` (B,); True when no image goes on."""
        self.iterations = self.iterations + self.running
        if self.tol is None:
            return False
        unsettled = ~(change < self.tol)  # so that NaN is not taken for convergence
        if self.stop == "image":
            self.running = self.running & unsettled
            return not self.running.any()  # host-device sync
        waiting = anywhere(unsettled)
        self.running = waiting.expand_as(unsettled)
        return not waiting  # host-device sync
