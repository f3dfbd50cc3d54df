"""The compared methods from the configuration, whose only reader in this folder this is."""

from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from clip.image import ImageTrunk
from clip.load import IMAGENET_TEMPLATES, ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_loss
from model.compared.comc import CoMC
from model.compared.tagclip import SCENE_TEMPLATES, TagCLIP
from model.method import ModelError

__all__ = ["build_comc", "build_tagclip"]


def build_tagclip(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> TagCLIP:  # fmt: skip
    """TagCLIP; see `model.build.build_method`."""
    kind, blocks = cfg.MODEL.TAGCLIP.TEMPLATES, cfg.MODEL.TAGCLIP.BLOCKS
    votes, threshold = cfg.MODEL.TAGCLIP.VOTES, cfg.MODEL.TAGCLIP.THRESHOLD
    templates = {"official": (*IMAGENET_TEMPLATES, *SCENE_TEMPLATES), "one": (cfg.MODEL.TEMPLATE,)}
    _require(
        ("TAGCLIP.TEMPLATES", kind, kind in templates, "official or one"),
        ("TAGCLIP.BLOCKS", blocks, blocks >= 1, "at least 1"),
        ("TAGCLIP.VOTES", votes, 0 <= votes <= 1, "between 0 and 1"),
        ("TAGCLIP.THRESHOLD", threshold, 0 <= threshold <= 1, "between 0 and 1"),
    )
    return TagCLIP(
        trunk=_frozen_trunk(cfg, towers),
        text=_frozen_text(cfg, towers, texts),
        scale=towers.logit_scale,
        templates=templates[kind],
        background=cfg.MODEL.TAGCLIP.BACKGROUND,
        blocks=blocks,
        votes=votes,
        threshold=threshold,
    )


def build_comc(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS,  # noqa: ARG001
    labels: Sequence[str] = (),
) -> CoMC:  # fmt: skip
    """CoMC for a fixed set of `labels`, seen and unseen; see `model.build.build_method`."""
    if not labels:
        raise ModelError("MODEL.METHOD comc classifies labels that are fixed in training, and none are known here")
    sentences, batch = cfg.MODEL.COMC.SENTENCES, cfg.MODEL.COMC.BATCH
    noise, mix = cfg.MODEL.COMC.NOISE, cfg.MODEL.COMC.MIX
    _require(
        ("COMC.SENTENCES", sentences, sentences >= 0, "at least 0"),
        ("COMC.BATCH", batch, batch >= 1, "at least 1"),
        ("COMC.NOISE", noise, noise >= 0, "at least 0"),
        ("COMC.MIX", mix, 0 <= mix <= 1, "between 0 and 1"),
    )
    return CoMC(
        trunk=_frozen_trunk(cfg, towers),
        text=_frozen_text(cfg, towers, texts),
        scale=towers.logit_scale,
        labels=labels,
        templates=IMAGENET_TEMPLATES,
        sentences=sentences,
        seed=cfg.SOLVER.SEED,
        batch=batch,
        noise=noise,
        mix=mix,
        loss=build_loss(cfg),
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )


def _frozen_trunk(cfg: CfgNode, towers: ClipTowers) -> ImageTrunk:
    """The image tower as it is."""
    return ImageTrunk(
        towers.visual, adapted=(), saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions=cfg.MODEL.POSITIONS
    )


def _frozen_text(cfg: CfgNode, towers: ClipTowers, texts: Mapping[str, str]) -> TextEncoder:
    """The text tower as it is."""
    return TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.TEMPLATE, prompted=(), texts=texts)


def _require(*rules: tuple[str, Any, bool, str]) -> None:
    """Refuses the first setting that is out of its range: (key, value, whether it holds, what is wanted)."""
    for key, value, holds, wanted in rules:
        if not holds:
            raise ModelError(f"MODEL.{key} must be {wanted}, not {value!r}")
