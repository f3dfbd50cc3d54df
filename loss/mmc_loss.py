"""Multi-matching contrastive (MMC) loss: every present label of a batch against all labels of all images.

RAM (CVPR 2025), Section 3.4, Eq. (13), and without the other images, Eq. (21). The batch is that of all processes.
"""

import torch
from torch import Tensor

from parallel import logsumexp, summed

__all__ = ["mmc_image_loss", "mmc_loss"]


def mmc_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-(1/|Pos|) sum over (b, j) in Pos of log(exp(P_bj) / sum_b'j' exp(P_b'j')), Eq. (13); a scalar, float32.

    The denominator runs over the whole flattened batch, positives included. Without any positive the loss is 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, else 0.
    """
    logits, targets = logits.float(), targets.float()
    positives, matched = summed(torch.stack([targets.sum(), (targets * logits).sum()]))
    return (positives * logsumexp(logits) - matched) / positives.clamp(min=1)


def mmc_image_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """MMC without the batch: each image's labels compete with each other only, Eq. (21); a scalar, float32.

    -(1/B) sum_b (1/|Pos_b|) sum over j in Pos_b of log(exp(P_bj) / sum_j' exp(P_bj')), where B counts the images that
    have positives (the paper does not say what becomes of the others). Without any the loss is 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, else 0.
    """
    logits, targets = logits.float(), targets.float()
    positives = targets.sum(1)  # (B,)
    per_image = -(targets * logits.log_softmax(1)).sum(1) / positives.clamp(min=1)
    total, images = summed(torch.stack([per_image.sum(), (positives > 0).sum().float()]))
    return total / images.clamp(min=1)
