"""What couples the images of a batch, where each process has a share of them.

Inside `as_one` every function spans the shares of all processes; outside of it, and in a single process, the values
that it is given. So a loss of the whole batch is written once:

    L = reductions of the shares' parts, the same number in every process

Gradients are those of the sum of all processes' losses, W L for W processes: `DistributedDataParallel` divides by W,
and what it hands the optimiser is the gradient of L with respect to the whole batch.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel.group import rank, world_size

__all__ = ["anywhere", "as_one", "least", "logsumexp", "mean", "own_share", "rows_of_all", "spans_processes", "summed"]

_together = False


@contextlib.contextmanager
def as_one() -> Iterator[None]:
    """All processes compute the same step, each with its share; every one of them has to enter and to go through."""
    global _together
    before, _together = _together, world_size() > 1
    try:
        yield
    finally:
        _together = before


def spans_processes() -> bool:
    """Whether this is a step of several processes."""
    return _together


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes, and in the backward pass of its gradients."""

    @staticmethod
    def forward(_: Any, share: Tensor) -> Tensor:
        return _reduced(share, dist.ReduceOp.SUM)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _reduced(gradient, dist.ReduceOp.SUM)


def summed(share: Tensor) -> Tensor:
    """The sum of the processes' tensors of one shape, with gradients."""
    return _Sum.apply(share) if _together else share


def own_share(whole: Tensor) -> Tensor:
    """The rows of this process, of what every process has drawn alike."""
    if not _together:
        return whole
    return whole.tensor_split(world_size())[rank()]


def mean(share: Tensor) -> Tensor:
    """The mean over all elements of all shares, which may differ in size: a scalar, with gradients."""
    if not _together:
        return share.mean()
    total, count = summed(torch.stack([share.sum(), share.new_tensor(share.numel())]))
    return total / count.detach()


def logsumexp(share: Tensor, dim: int | None = None) -> Tensor:
    """log of the sum of exp over all elements of all shares: a scalar, with gradients.

    Args:
        share: finite.
        dim: sum along it alone, in which shares may differ in size.
    """
    here = share.flatten().logsumexp(0) if dim is None else share.logsumexp(dim)
    if not _together:
        return here
    highest = _reduced(here.detach(), dist.ReduceOp.MAX)
    return highest + summed((here - highest).exp()).log()


def least(share: Tensor) -> Tensor:
    """The smallest element of all shares: a scalar, without gradients."""
    if not _together:
        return share.min()
    here = share.detach().min() if share.numel() else share.new_tensor(float("inf"))
    return _reduced(here, dist.ReduceOp.MIN)


def rows_of_all(share: Tensor) -> Tensor:
    """The rows of all shares, in the order of the processes, which may differ in their number; without gradients."""
    share = share.detach()
    if not _together:
        return share
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=share.device)
    sizes[rank()] = len(share)
    counts = _reduced(sizes, dist.ReduceOp.SUM).tolist()  # host-device sync
    padded = share.new_zeros(max(counts), *share.shape[1:])
    padded[: len(share)] = share
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def anywhere(share: Tensor) -> Tensor:
    """Whether any element of any share is true: a scalar, bool."""
    here = share.any()
    return _reduced(here.int(), dist.ReduceOp.MAX).bool() if _together else here


def _reduced(share: Tensor, how: Any) -> Tensor:
    """The same to the bit in every process."""
    result = share.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result, op=how)
    return result
