"""The loss that the configuration names; its only reader here."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from errors import UserError
from loss.asl_loss import asl_loss, plain_asl_loss
from loss.mmc_loss import mmc_image_loss, mmc_loss
from loss.ranking_loss import ranking_loss
from loss.summed_asl_loss import summed_asl_loss

__all__ = ["LOSSES", "LossError", "build_loss", "build_summed_asl"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "MMC": mmc_loss, "MMC-IMAGE": mmc_image_loss, "RANKING": ranking_loss
}  # fmt: skip
FOCUSED: dict[str, Callable[..., Tensor]] = {"ASL": asl_loss, "ASL-PLAIN": plain_asl_loss}  # these take SOLVER.GAMMA_*


class LossError(UserError, ValueError):
    """A loss that does not exist, or one of its settings out of its range."""


def build_loss(cfg: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """The configured loss, a function of logits (B, C) and targets (B, C).

    Raises:
        LossError: naming the key, if MODEL.LOSS_TYPE is unknown or a setting of ASL out of its range.
    """
    kind = cfg.MODEL.LOSS_TYPE
    if kind in LOSSES:
        return LOSSES[kind]
    if kind not in FOCUSED:
        raise LossError(f"MODEL.LOSS_TYPE must be one of {', '.join((*LOSSES, *FOCUSED))}, not {kind!r}")
    return partial(FOCUSED[kind], **_focusing(cfg))


def build_summed_asl(cfg: CfgNode, *, smallest: float) -> Callable[[Tensor, Tensor], Tensor]:
    """ASL summed over images and labels, a function of logits (B, C) and targets (B, C) in which -1 is unknown.

    Args:
        cfg: the configuration, of which the settings of ASL are read.
        smallest: probability at which logarithms end.

    Raises:
        LossError: naming the key, if a setting is out of its range.
    """
    return partial(summed_asl_loss, smallest=smallest, **_focusing(cfg))


def _focusing(cfg: CfgNode) -> dict[str, Any]:
    """The settings of ASL by the names of its arguments."""
    for key, gamma in (("GAMMA_NEG", cfg.SOLVER.GAMMA_NEG), ("GAMMA_POS", cfg.SOLVER.GAMMA_POS)):
        if not gamma >= 0:
            raise LossError(f"SOLVER.{key} must be at least 0, not {gamma}")
    if not 0 <= cfg.SOLVER.CLIP < 1:
        raise LossError(f"SOLVER.CLIP must be in [0, 1), not {cfg.SOLVER.CLIP}")
    return {"gamma_neg": cfg.SOLVER.GAMMA_NEG, "gamma_pos": cfg.SOLVER.GAMMA_POS, "clip": cfg.SOLVER.CLIP}
