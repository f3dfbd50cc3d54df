"""Ranking loss: every present label above every absent one by a margin (RAM, Eq. (20); Gong et al., ICLR 2014)."""

from torch import Tensor

__all__ = ["ranking_loss"]


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the images of sum over i in Pos, k not in Pos of max(0, 1 + P_k - P_i), Eq. (20); a scalar, float32.

    The paper leaves open what the sum is divided by. BiAM and MKT divide by the number of violated pairs; here, as in
    CoMC, nothing but the mean over images is taken, and images without a pair count 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, else 0.
    """
    logits, targets = logits.float(), targets.float()
    hinge = (1 + logits[:, None, :] - logits[:, :, None]).clamp(min=0)  # (B, C present, C absent)
    pairs = targets[:, :, None] * (1 - targets)[:, None, :]
    return (pairs * hinge).sum((1, 2)).mean()
