"""Losses over logits and targets. `build_loss` is the only reader of the configuration here."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from loss.asl_loss import asl_loss
from loss.mmc_loss import mmc_loss

__all__ = ["asl_loss", "build_loss", "mmc_loss"]


def build_loss(cfg) -> Callable[[Tensor, Tensor], Tensor]:
    """The configured loss, a function of logits (B, C) and targets (B, C).

    Raises:
        ValueError: if MODEL.LOSS_TYPE is unknown.
    """
    if cfg.MODEL.LOSS_TYPE == "MMC":
        return mmc_loss
    if cfg.MODEL.LOSS_TYPE == "ASL":
        return partial(
            asl_loss, gamma_neg=cfg.SOLVER.GAMMA_NEG, gamma_pos=cfg.SOLVER.GAMMA_POS, clip=cfg.SOLVER.CLIP
        )
    raise ValueError(f"MODEL.LOSS_TYPE must be MMC or ASL, not {cfg.MODEL.LOSS_TYPE!r}")
