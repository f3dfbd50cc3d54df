"""The loss that the configuration names; its only reader here."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from errors import UserError
from loss.asl_loss import asl_loss, plain_asl_loss
from loss.mmc_loss import mmc_image_loss, mmc_loss
from loss.ranking_loss import normalised_ranking_loss, ranking_loss
from loss.summed_asl_loss import summed_asl_loss

__all__ = ["LOSSES", "LossError", "build_loss", "build_summed_asl"]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "MMC": mmc_loss, "MMC-IMAGE": mmc_image_loss, "RANKING": ranking_loss, "RANKING-MEAN": normalised_ranking_loss
}  # fmt: skip
FOCUSED: dict[str, Callable[..., Tensor]] = {"ASL": asl_loss, "ASL-PLAIN": plain_asl_loss}  # these take SOLVER.GAMMA_*


class LossError(UserError, ValueError):
    """A loss that does not exist."""


def build_loss(cfg: CfgNode) -> Callable[[Tensor, Tensor], Tensor]:
    """The configured loss, a function of logits (B, C) and targets (B, C).

    Raises:
        LossError: if MODEL.LOSS_TYPE is unknown.
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
    """
    return partial(summed_asl_loss, smallest=smallest, **_focusing(cfg))


def _focusing(cfg: CfgNode) -> dict[str, Any]:
    """The settings of ASL by the names of its arguments."""
    return {"gamma_neg": cfg.SOLVER.GAMMA_NEG, "gamma_pos": cfg.SOLVER.GAMMA_POS, "clip": cfg.SOLVER.CLIP}
