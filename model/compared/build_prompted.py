"""Compared methods that learn contexts, from the configuration."""

from collections.abc import Mapping

from yacs.config import CfgNode

from clip.load import ClipTowers
from clip.text import NO_TEXTS
from loss.build import build_loss, build_summed_asl
from model.build_parts import build_context, frozen_text, frozen_trunk, recipe_of
from model.compared.coop import CoOp
from model.compared.dual_coop import DualCoOp

__all__ = ["build_coop", "build_dual_coop"]

DUAL_COOP_SMALLEST = 1e-6  # probability at which the logarithms of DualCoOp's loss end


def build_coop(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> CoOp:  # fmt: skip
    """CoOp; see `model.build.build_method`."""
    text = frozen_text(cfg, towers, texts)
    return CoOp(
        trunk=frozen_trunk(cfg, towers),
        text=text,
        context=build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS),
        scale=towers.logit_scale,
        loss=build_loss(cfg),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        recipe=recipe_of(cfg),
    )


def build_dual_coop(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> DualCoOp:  # fmt: skip
    """DualCoOp; see `model.build.build_method`."""
    text = frozen_text(cfg, towers, texts)
    return DualCoOp(
        trunk=frozen_trunk(cfg, towers),
        text=text,
        positive=build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS),
        negative=build_context(cfg, text),
        sharpness=cfg.MODEL.DUALCOOP.SHARPNESS,
        scale=cfg.MODEL.DUALCOOP.SCALE,
        labels_per_step=cfg.MODEL.DUALCOOP.LABELS_PER_STEP,
        loss=build_summed_asl(cfg, smallest=DUAL_COOP_SMALLEST),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        recipe=recipe_of(cfg),
    )
