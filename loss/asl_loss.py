"""Asymmetric loss (ASL): every label is a yes-or-no question (Ridnik et al., ICCV 2021; RAM, Eq. (19)).

With p = sigmoid(P) and p_m = max(p - clip, 0), both functions weigh log p of present labels by (1 - p)^gamma_pos and
log(1 - p_m) of absent ones by p_m^gamma_neg. They differ in what the paper leaves open.

Labels that are not known of an image are in neither; the means are over those that are.

B images, C labels; means are over the images of all processes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from parallel import mean, summed

__all__ = ["asl_loss", "plain_asl_loss"]

RELEASE_SCALE = 1000.0  # the release multiplies the mean by this
SMALLEST = 1e-5  # probability below which the release's logarithms, and so their gradients, end


def asl_loss(logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """What the release computes: a scalar, float32.

    -1000 mean[y w+ log max(p, 1e-5) + (1-y) w- log max(1 - p_m, 1e-5)],  w+ = (1-p)^gamma_pos, w- = p_m^gamma_neg

    The weights are constants: no gradient flows through them. Beyond 1e-5 there is no gradient at all.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, 0 where it is absent, -1 where that is not known.
        gamma_neg: focusing of absent labels, >= 0.
        gamma_pos: focusing of present labels, >= 0.
        clip: margin by which absent labels' probabilities are shifted down, in [0, 1).
    """
    p, is_present, is_absent = logits.float().sigmoid(), targets == 1, targets == 0
    rest = (1 - p + clip).clamp(max=1)  # 1 - p_m
    present, absent = (1 - p).detach().pow(gamma_pos), (1 - rest).detach().pow(gamma_neg)
    logs = is_present * present * p.clamp(min=SMALLEST).log() + is_absent * absent * rest.clamp(min=SMALLEST).log()
    return -RELEASE_SCALE * _mean_of_known(logs, targets)


def plain_asl_loss(logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float) -> Tensor:
    """Eq. (19) as the paper prints it, mean over labels and images: a scalar, float32.

    -mean[y (1-p)^gamma_pos log p + (1-y) p_m^gamma_neg log(1 - p_m)]

    Everything carries gradient, and nothing is cut off: without focusing it is binary cross-entropy. Arguments as in
    `asl_loss`.
    """
    logits, is_present, is_absent = logits.float(), targets == 1, targets == 0
    log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)  # finite where p or 1 - p rounds to 0
    present = is_present * (gamma_pos * log_rest).exp() * log_p
    if clip > 0:
        p = logits.sigmoid()
        above = p > clip
        # Where p_m is 0 the term and its gradient are 0; the power alone has none there for gamma_neg below 1.
        shifted = torch.where(above, p - clip, 0.5)
        absent = is_absent * above * shifted.pow(gamma_neg) * torch.log1p(-shifted)
    else:
        absent = is_absent * (gamma_neg * log_p).exp() * log_rest
    return -_mean_of_known(present + absent, targets)


def _mean_of_known(terms: Tensor, targets: Tensor) -> Tensor:
    """The mean of terms (B, C) that are 0 where a label is not known over all others, and 0 where there are none."""
    is_known = targets >= 0
    known, all_of_them = summed(torch.stack([is_known.sum(), torch.ones_like(is_known).sum()]))
    return mean(terms) * (all_of_them / known.clamp(min=1))  # the factor is exactly 1 where all are known
