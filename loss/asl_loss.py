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
    log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)  # finite where p or 1 - p rounds to 0
    present = targets * (gamma_pos * log_rest).exp() * log_p
    if clip > 0:
        shifted = (logits.sigmoid() - clip).clamp(min=0)
        absent = (1 - targets) * shifted.pow(gamma_neg) * torch.log1p(-shifted)
    else:
        absent = (1 - targets) * (gamma_neg * log_p).exp() * log_rest
    return -RELEASE_SCALE * (present + absent).mean()
