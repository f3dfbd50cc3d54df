"""The compared methods from the configuration, whose only reader in this folder this is."""

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from clip.image import ImageTrunk
from clip.load import IMAGENET_TEMPLATES, ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from model.compared.tagclip import SCENE_TEMPLATES, TagCLIP
from model.method import ModelError

__all__ = ["build_tagclip"]


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
