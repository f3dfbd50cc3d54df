"""How well what is seen of a label fits its two texts (TRM-ML, Eq. (1) and (5)).

B images, C labels, D joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["matching"]


def matching(features: Tensor, positive: Tensor, negative: Tensor, log_scale: Tensor) -> Tensor:
    """z_c = (cos(f_c, g+_c) - cos(f_c, g-_c)) exp(theta), in the place of cos(f_c, g_c) / tau: (B, C), float32.

    The paper has two prompts of each label ("dual semantic strategy") and prints the formula for one. A probability is
    the sigmoid of z_c, as in DualCoOp.

    Args:
        features: (B, C, D), what is seen of each label, or (B, 1, D), of any norm.
        positive: (C, D), texts that say a label is present, of any norm.
        negative: (C, D), texts that say it is absent.
        log_scale: theta, a scalar.
    """
    with torch.autocast(features.device.type, enabled=False):  # cosines times 50
        positive, negative = (F.normalize(text.float(), dim=-1) for text in (positive, negative))
        contrast = (F.normalize(features.float(), dim=-1) * (positive - negative)).sum(-1)
        return contrast * log_scale.float().exp()
