"""Losses over logits and targets. `build_loss` is the only reader of the configuration here."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from loss.asl_loss import asl_loss, plain_asl_loss
from loss.mmc_loss import mmc_loss

__all__ = ["LossError", "asl_loss", "build_loss", "mmc_loss", "plain_asl_loss"]

LOSSES = {"MMC": mmc_loss, "ASL": asl_loss, "ASL-PLAIN": plain_asl_loss}


class LossError(ValueError):
    """A loss that does not exist, or one of its settings out of its range."""


def build_loss(cfg) -> Callable[[Tensor, Tensor], Tensor]:
    """The configured loss, a function of logits (B, C) and targets (B, C).

    Raises:
        LossError: naming the key, if MODEL.LOSS_TYPE is unknown or a setting of ASL out of its range.
    """
    kind = cfg.MODEL.LOSS_TYPE
    if kind not in LOSSES:
        raise LossError(f"MODEL.LOSS_TYPE must be {', '.join(LOSSES)}, not {kind!r}")
    if kind == "MMC":
        return mmc_loss
    for key, gamma in (("GAMMA_NEG", cfg.SOLVER.GAMMA_NEG), ("GAMMA_POS", cfg.SOLVER.GAMMA_POS)):
        if not gamma >= 0:
            raise LossError(f"SOLVER.{key} must be at least 0, not {gamma}")
    if not 0 <= cfg.SOLVER.CLIP < 1:
        raise LossError(f"SOLVER.CLIP must be in [0, 1), not {cfg.SOLVER.CLIP}")
    return partial(LOSSES[kind], gamma_neg=cfg.SOLVER.GAMMA_NEG, gamma_pos=cfg.SOLVER.GAMMA_POS, clip=cfg.SOLVER.CLIP)
