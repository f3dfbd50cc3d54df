"""Asymmetric loss (ASL) as its authors compute it: summed over images and labels, unknown labels left out.

Ridnik et al., ICCV 2021 (https://github.com/Alibaba-MIIL/ASL), and so in ML-Decoder (Ridnik et al., WACV 2023) and in
DualCoOp (Sun et al., NeurIPS 2022), which differ in where the logarithms end.

B images, C labels; the sum is over the images of all processes.
"""

from torch import Tensor

from parallel import summed

__all__ = ["summed_asl_loss"]


def summed_asl_loss(
    logits: Tensor, targets: Tensor, *, gamma_neg: float, gamma_pos: float, clip: float, smallest: float
) -> Tensor:
    """-sum[y w+ log max(p, smallest) + (1-y) w- log max(1 - p_m, smallest)] over what is known; a scalar, float32.

    p = sigmoid(P), p_m = max(p - clip, 0), w+ = (1-p)^gamma_pos, w- = p_m^gamma_neg. The weights are constants: no
    gradient flows through them, nor beyond `smallest`.

    Args:
        logits: (B, C).
        targets: (B, C), 1 where the label is present, 0 where it is absent, -1 where that is not known.
        gamma_neg: focusing of absent labels, >= 0.
        gamma_pos: focusing of present labels, >= 0.
        clip: margin by which absent labels' probabilities are shifted down, in [0, 1).
        smallest: probability at which logarithms end, in (0, 1).
    """
    p = logits.float().sigmoid()
    rest = (1 - p + clip).clamp(max=1)  # 1 - p_m
    present = (1 - p).detach().pow(gamma_pos) * p.clamp(min=smallest).log()
    absent = (1 - rest).detach().pow(gamma_neg) * rest.clamp(min=smallest).log()
    return -summed(((targets == 1) * present + (targets == 0) * absent).sum())
