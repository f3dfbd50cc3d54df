"""Multi-matching contrastive (MMC) loss: every present label of a batch against all labels of all images.

RAM (CVPR 2025), Section 3.4, Eq. (13), and without the other images, Eq. (21). The batch is that of all processes.
A label that is not known of an image is neither present there nor anything that present ones compete with: its logit is
left out of the denominator, and no gradient reaches it.
"""

import torch
from torch import Tensor

from parallel import logsumexp, summed

__all__ = ["mmc_image_loss", "mmc_loss"]

NOTHING = torch.finfo(torch.float32).min  # as a logit; its exp is 0 beside any other, and of nothing else it is finite


def mmc_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-(1/|Pos|) sum over (b, j) in Pos of log(exp(P_bj) / sum_b'j' exp(P_b'j')), Eq. (13); a scalar, float32.

    The denominator runs over all that is known of the flattened batch, positives included. Without any positive the
    loss is 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, 0 where it is absent, -1 where that is not known.
    """
    logits, present = logits.float(), (targets == 1).float()
    positives, matched = summed(torch.stack([present.sum(), (present * logits).sum()]))
    return (positives * logsumexp(_known(logits, targets)) - matched) / positives.clamp(min=1)


def mmc_image_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """MMC without the batch: each image's labels compete with each other only, Eq. (21); a scalar, float32.

    -(1/B) sum_b (1/|Pos_b|) sum over j in Pos_b of log(exp(P_bj) / sum_j' exp(P_bj')), where B counts the images that
    have positives (the paper does not say what becomes of the others), and j' is known. Without any the loss is 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), as in `mmc_loss`.
    """
    logits, present = logits.float(), (targets == 1).float()
    positives = present.sum(1)  # (B,)
    per_image = -(present * _known(logits, targets).log_softmax(1)).sum(1) / positives.clamp(min=1)
    total, images = summed(torch.stack([per_image.sum(), (positives > 0).sum().float()]))
    return total / images.clamp(min=1)


def _known(logits: Tensor, targets: Tensor) -> Tensor:
    """The logits, and `NOTHING` where the label is not known."""
    return logits.masked_fill(targets < 0, NOTHING)
