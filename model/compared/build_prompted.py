"""Learned contexts, and the compared methods that train them, from the configuration."""

from collections.abc import Mapping

from yacs.config import CfgNode

from clip.contexts import Context, random_context, word_context
from clip.load import ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_loss, build_summed_asl
from model.compared.build import frozen_text, frozen_trunk, refuse_impossible
from model.compared.coop import CoOp
from model.compared.dual_coop import DualCoOp
from model.method import ModelError, Recipe

__all__ = ["build_context", "build_coop", "build_dual_coop", "recipe_of"]

DUAL_COOP_SMALLEST = 1e-6  # probability at which the logarithms of DualCoOp's loss end


def recipe_of(cfg: CfgNode) -> Recipe:
    """The numbers of SOLVER that groups of parameters are made from."""
    return Recipe(
        lr=cfg.SOLVER.BASE_LR, adapter_factor=cfg.SOLVER.ADAPTER_FACTOR, lr_sgd=cfg.SOLVER.BASE_LR_SGD,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY, weight_decay_sgd=cfg.SOLVER.WEIGHT_DECAY_SGD,
        momentum=cfg.SOLVER.MOMENTUM,
    )  # fmt: skip


def build_context(cfg: CfgNode, text: TextEncoder, *, words: str = "") -> Context:
    """A context before it is learned.

    Args:
        cfg: the configuration, of which MODEL.CONTEXT is read.
        text: the text tower.
        words: that it starts as, a vector for each of their tokens; "": vectors drawn at random.

    Raises:
        ModelError: naming the key, if there are no vectors, or no place for a name beside them.
    """
    count, most = cfg.MODEL.CONTEXT.COUNT, len(text.text.positional_embedding) - 3  # start, one token, end
    initial = word_context(text, words) if words.strip() else None
    if initial is not None and len(initial) > most:
        raise ModelError(f"MODEL.CONTEXT.WORDS must be {most} tokens at most, not {len(initial)}")
    if initial is None and not 1 <= count <= most:
        raise ModelError(f"MODEL.CONTEXT.COUNT must be between 1 and {most}, not {count}")
    return Context(
        random_context(count, text.width) if initial is None else initial, recompute=cfg.MODEL.CONTEXT.RECOMPUTE
    )


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
    sharpness, scale = cfg.MODEL.DUALCOOP.SHARPNESS, cfg.MODEL.DUALCOOP.SCALE
    labels_per_step = cfg.MODEL.DUALCOOP.LABELS_PER_STEP
    refuse_impossible((
        ("DUALCOOP.SHARPNESS", sharpness, sharpness > 0, "positive"),
        ("DUALCOOP.SCALE", scale, scale > 0, "positive"),
        ("DUALCOOP.LABELS_PER_STEP", labels_per_step, labels_per_step >= 0, "at least 0"),
    ))  # fmt: skip
    text = frozen_text(cfg, towers, texts)
    return DualCoOp(
        trunk=frozen_trunk(cfg, towers, adapted=(len(towers.visual.transformer.resblocks) - 1,)),
        text=text,
        positive=build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS),
        negative=build_context(cfg, text),
        sharpness=sharpness,
        scale=scale,
        labels_per_step=labels_per_step,
        loss=build_summed_asl(cfg, smallest=DUAL_COOP_SMALLEST),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        recipe=recipe_of(cfg),
    )
