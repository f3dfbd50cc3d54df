"""Losses over logits and targets, each a function with its equation."""

from loss.asl_loss import asl_loss, plain_asl_loss
from loss.build import LossError, build_loss
from loss.mmc_loss import mmc_image_loss, mmc_loss
from loss.ranking_loss import ranking_loss
from loss.summed_asl_loss import summed_asl_loss

__all__ = [
    "LossError",
    "asl_loss",
    "build_loss",
    "mmc_image_loss",
    "mmc_loss",
    "plain_asl_loss",
    "ranking_loss",
    "summed_asl_loss",
]
