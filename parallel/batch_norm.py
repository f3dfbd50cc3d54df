"""Batch normalisation over the shares of all processes, on CPUs too, where torch's SyncBatchNorm does not run."""

import torch
from torch import Tensor, nn

from parallel import reductions

__all__ = ["BatchNorm2d"]


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose statistics are those of the whole batch inside `reductions.as_one`.

    Outside of it, and in evaluation, it is torch's to the bit. The moments are taken in two turns, the mean first,
    since a difference of squares loses what matters where the mean is large.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) normalised by channel, in the dtype of `input`."""
        if not (self.training and reductions.spans_processes()):
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))  # half precision has too few digits
        count = reductions.summed(x.new_tensor(x.numel() / x.shape[1]))
        mean = reductions.summed(x.sum((0, 2, 3))) / count  # (C,)
        centred = x - mean[:, None, None]
        variance = reductions.summed(centred.square().sum((0, 2, 3))) / count
        self._remember(mean, variance * count / (count - 1).clamp(min=1))
        normalised = centred * (variance + self.eps).rsqrt()[:, None, None]
        return (normalised * self.weight[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics, each (C,), of which the variance is the unbiased one."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)
