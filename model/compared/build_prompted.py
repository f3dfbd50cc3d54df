"""Compared methods that learn contexts, from the configuration."""

from collections.abc import Mapping, Sequence

from yacs.config import CfgNode

from clip.load import ClipTowers
from clip.text import NO_TEXTS
from loss.build import build_loss, build_summed_asl
from model.build_parts import build_context, build_negative, frozen_text, frozen_trunk, recipe_of, require_seen
from model.compared.coop import CoOp
from model.compared.dual_coop import DualCoOp
from model.compared.dual_coop_partial import PartialDualCoOp

__all__ = ["build_coop", "build_dual_coop", "build_dual_coop_partial"]

DUAL_COOP_SMALLEST = 1e-6  # probability at which the logarithms of DualCoOp's loss end
PARTIAL_SMALLEST = 1e-8  # and those of the modified one


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


def build_dual_coop_partial(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS, labels: Sequence[str] = ()
) -> PartialDualCoOp:
    """DualCoOp with contexts of each of the `labels`' own, all of them seen; see `model.build.build_method`.

    Raises:
        ModelError: if no labels are known, or some are unseen.
    """
    way_out = "take MODEL.METHOD dualcoop, whose contexts all labels share"
    require_seen(cfg.MODEL.METHOD, labels, seen, learned="contexts", way_out=way_out)
    text = frozen_text(cfg, towers, texts)
    return PartialDualCoOp(
        trunk=frozen_trunk(cfg, towers),
        text=text,
        labels=labels,
        positive=build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS, labels=len(labels)),
        negative=build_negative(cfg, text, len(labels)),
        sharpness=cfg.MODEL.DUALCOOP.SHARPNESS if cfg.MODEL.DUALCOOP.POOLING == "reweight" else None,
        scale=cfg.MODEL.DUALCOOP.SCALE,
        loss=build_summed_asl(cfg, smallest=PARTIAL_SMALLEST),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )
