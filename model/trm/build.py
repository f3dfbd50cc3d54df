"""TRM-ML from the configuration, whose only reader in this folder it is."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from clip.load import ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_summed_asl
from model.build_parts import (
    build_context,
    build_negative,
    fewest_regions,
    frozen_text,
    frozen_trunk,
    refuse_impossible,
    require_seen,
)
from model.trm.category_prototypes import KINDS, CategoryPrototypes
from model.trm.method import TRMML
from model.trm.objective import Objective, Weights
from model.trm.regions import RegionDecoder

__all__ = ["build_trm"]

SMALLEST = 1e-8  # probability at which the logarithms of Eq. (14) end, as in the authors' earlier code


def build_trm(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS, labels: Sequence[str] = ()
) -> TRMML:
    """TRM-ML for a fixed list of `labels`, all of them seen; see `model.build.build_method`.

    Raises:
        ModelError: as there, and if no labels are known or some are unseen.
    """
    way_out = "take a benchmark without such"
    require_seen(cfg.MODEL.METHOD, labels, seen, learned="prompts", way_out=way_out)
    trunk, text = frozen_trunk(cfg, towers, pool_positions=False), frozen_text(cfg, towers, texts)
    top_k, regions, width = cfg.MODEL.TRM.TOP_K, fewest_regions(cfg, towers), text.joint_width
    refuse_impossible((
        ("TRM.TOP_K", top_k, top_k <= regions, f"at most the {regions} regions of an image"),
        ("BACKBONE", cfg.MODEL.BACKBONE, width % 4 == 0, f"one whose joint width, here {width}, is a multiple of 4"),
    ))  # fmt: skip
    return TRMML(
        trunk=trunk,
        text=text,
        labels=labels,
        positive=build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS, labels=len(labels)),
        negative=build_negative(cfg, text, len(labels)),
        decoder=RegionDecoder(
            labels=len(labels),
            queries=_queries(cfg, text, labels),
            width=width,
            hidden=cfg.MODEL.TRM.HIDDEN,
            dropout=cfg.MODEL.TRM.DROPOUT,
            attention=cfg.MODEL.TRM.ATTENTION,
            self_attention=cfg.MODEL.TRM.SELF_ATTENTION,
        ),
        prototypes=CategoryPrototypes(
            labels=len(labels),
            width=width,
            length=cfg.MODEL.TRM.QUEUE,
            count=top_k,
            momentum=cfg.MODEL.TRM.MOMENTUM,
            kinds={"both": KINDS, "none": ()}.get(cfg.MODEL.TRM.PSEUDO_LABELS, (cfg.MODEL.TRM.PSEUDO_LABELS,)),
        ),
        objective=Objective(width=width, loss=build_summed_asl(cfg, smallest=SMALLEST), weights=_weights(cfg)),
        scale=cfg.MODEL.TRM.SCALE,
        unknown=cfg.MODEL.TRM.UNKNOWN,
        pseudo_start=cfg.MODEL.TRM.PSEUDO_START,
        continued=cfg.MODEL.TRM.CONTINUED,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )


def _weights(cfg: CfgNode) -> Weights:
    return Weights(
        regions=cfg.MODEL.TRM.REGION_WEIGHT,
        distillation=cfg.MODEL.TRM.KD_WEIGHT,
        contrast=cfg.MODEL.TRM.CONTRAST_WEIGHT,
        distillation_temperature=cfg.MODEL.TRM.KD_TEMPERATURE,
        distillation_reduction=cfg.MODEL.TRM.KD_REDUCTION,
        contrast_temperature=cfg.MODEL.TRM.CONTRAST_TEMPERATURE,
    )


def _queries(cfg: CfgNode, text: TextEncoder, labels: Sequence[str]) -> Tensor | None:
    """What the queries begin as, (C, D): features of the labels' texts, as long as random ones; None: random."""
    if cfg.MODEL.TRM.QUERIES == "random":
        return None
    return text.joint_width**0.5 * F.normalize(text.prefix(labels).plain.float(), dim=-1)
