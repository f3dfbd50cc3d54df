"""Asymmetric loss (ASL): every label is a yes-or-no question (Ridnik et al., ICCV 2021; RAM, Eq. (19))."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["asl_loss"]

RELEASE_SCALE = 1000.0  # the release multiplies the mean by this


def asl_loss(logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """-1000 mean[y (1-p)^g+ log p + (1-y) p_m^g- log(1-p_m)], p = sigmoid(P), p_m = max(p - clip, 0); float32.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, else 0.
        gamma_neg: focusing of absent labels, >= 0.
        gamma_pos: focusing of present labels, >= 0.
        clip: margin by which absent labels' probabilities are shifted down, in [0, 1).
    """
    logits, targets = logits.float(), targets.float()
    p = logits.sigmoid()
    if clip > 0:
        shifted = (p - clip).clamp(min=0)
        log_absent = torch.log1p(-shifted)
    else:
        shifted, log_absent = p, F.logsigmoid(-logits)  # stable where p rounds to 1
    present = targets * (1 - p).pow(gamma_pos) * F.logsigmoid(logits)
    absent = (1 - targets) * shifted.pow(gamma_neg) * log_absent
    return -RELEASE_SCALE * (present + absent).mean()
