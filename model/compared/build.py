"""Compared methods from the configuration, whose only readers in this folder are the files named build."""

from collections.abc import Mapping, Sequence

from yacs.config import CfgNode

from clip.load import IMAGENET_TEMPLATES, ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_loss, build_summed_asl
from model.build_parts import (
    fewest_regions,
    frozen_text,
    frozen_trunk,
    frozen_vit,
    refuse_impossible,
    require_vit,
)
from model.compared.biam import BiAM, BiAMHead
from model.compared.comc import CoMC
from model.compared.mkt import MKT, VisionTail
from model.compared.ml_decoder import LabelDecoder, MLDecoder
from model.compared.tagclip import SCENE_TEMPLATES, TagCLIP
from model.compared.template_words import TemplateWords
from model.method import ModelError

__all__ = ["build_biam", "build_comc", "build_mkt", "build_ml_decoder", "build_tagclip"]

ML_DECODER_SMALLEST = 1e-8  # probability at which the logarithms of ML-Decoder's loss end


def build_ml_decoder(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> MLDecoder:  # fmt: skip
    """ML-Decoder; see `model.build.build_method`."""
    _check_ml_decoder(cfg)
    trunk, text = frozen_trunk(cfg, towers), frozen_text(cfg, towers, texts)
    return MLDecoder(
        trunk=trunk,
        text=text,
        decoder=LabelDecoder(
            feature_width=trunk.width,
            label_width=text.joint_width,
            width=cfg.MODEL.ML_DECODER.WIDTH,
            heads=cfg.MODEL.ML_DECODER.HEADS,
            hidden=cfg.MODEL.ML_DECODER.HIDDEN,
            dropout=cfg.MODEL.ML_DECODER.DROPOUT,
        ),
        loss=build_summed_asl(cfg, smallest=ML_DECODER_SMALLEST),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )


def _check_ml_decoder(cfg: CfgNode) -> None:
    """Refuses sizes that no decoder can have."""
    width, heads = cfg.MODEL.ML_DECODER.WIDTH, cfg.MODEL.ML_DECODER.HEADS
    refuse_impossible([("ML_DECODER.WIDTH", width, width % heads == 0, f"a multiple of the {heads} heads")])


def build_biam(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> BiAM:  # fmt: skip
    """BiAM; see `model.build.build_method`."""
    channels, heads, top_k = cfg.MODEL.BIAM.CHANNELS, cfg.MODEL.BIAM.HEADS, cfg.MODEL.BIAM.TOP_K
    regions = fewest_regions(cfg, towers)
    refuse_impossible((
        ("BIAM.CHANNELS", channels, channels % heads == 0, f"a multiple of the {heads} heads"),
        ("BIAM.TOP_K", top_k, 1 <= top_k <= regions, f"between 1 and the {regions} regions of an image"),
    ))  # fmt: skip
    trunk, text = frozen_trunk(cfg, towers), frozen_text(cfg, towers, texts)
    head = BiAMHead(
        map_width=trunk.width, global_width=text.joint_width, label_width=text.joint_width, channels=channels,
        heads=heads, top_k=top_k,
    )  # fmt: skip
    return BiAM(trunk=trunk, text=text, head=head, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)


def build_mkt(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> MKT:  # fmt: skip
    """Either stage of MKT; see `model.build.build_method`. The towers stay as they are: what is trained is copied."""
    require_vit(cfg, towers)
    depth = len(towers.visual.transformer.resblocks)
    _check_mkt(cfg, depth=depth, regions=fewest_regions(cfg, towers))
    count = cfg.MODEL.MKT.BLOCKS
    text = TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.MKT.TEMPLATE, prompted=(), texts=texts)
    return MKT(
        trunk=frozen_vit(cfg, towers, adapted=range(depth - count, depth)),
        text=text,
        tail=VisionTail(towers.visual, count),
        words=TemplateWords(text),
        stage=cfg.MODEL.MKT.STAGE,
        top_k=cfg.MODEL.MKT.TOP_K,
        distillation=cfg.MODEL.MKT.DISTILLATION,
        lr=cfg.SOLVER.BASE_LR,
        layer_decay=cfg.MODEL.MKT.LAYER_DECAY,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )  # fmt: skip


def _check_mkt(cfg: CfgNode, *, depth: int, regions: int) -> None:
    blocks, top_k = cfg.MODEL.MKT.BLOCKS, cfg.MODEL.MKT.TOP_K
    refuse_impossible((
        ("MKT.BLOCKS", blocks, 1 <= blocks <= depth, f"between 1 and the {depth} blocks of the image tower"),
        ("MKT.TOP_K", top_k, 1 <= top_k <= regions, f"between 1 and the {regions} regions of an image"),
    ))  # fmt: skip


def build_tagclip(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> TagCLIP:  # fmt: skip
    """TagCLIP; see `model.build.build_method`."""
    templates = {"official": (*IMAGENET_TEMPLATES, *SCENE_TEMPLATES), "one": (cfg.MODEL.TEMPLATE,)}
    return TagCLIP(
        trunk=frozen_vit(cfg, towers),
        text=frozen_text(cfg, towers, texts),
        scale=towers.logit_scale,
        templates=templates[cfg.MODEL.TAGCLIP.TEMPLATES],
        background=cfg.MODEL.TAGCLIP.BACKGROUND,
        blocks=cfg.MODEL.TAGCLIP.BLOCKS,
        votes=cfg.MODEL.TAGCLIP.VOTES,
        threshold=cfg.MODEL.TAGCLIP.THRESHOLD,
    )


def build_comc(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS,  # noqa: ARG001
    labels: Sequence[str] = (),
) -> CoMC:  # fmt: skip
    """CoMC for a fixed set of `labels`, seen and unseen; see `model.build.build_method`."""
    if not labels:
        raise ModelError("MODEL.METHOD comc classifies labels that are fixed in training, and none are known here")
    return CoMC(
        trunk=frozen_trunk(cfg, towers, pool_positions=False),
        text=frozen_text(cfg, towers, texts),
        scale=towers.logit_scale,
        labels=labels,
        templates=IMAGENET_TEMPLATES,
        sentences=cfg.MODEL.COMC.SENTENCES,
        seed=cfg.SOLVER.SEED,
        batch=cfg.MODEL.COMC.BATCH,
        noise=cfg.MODEL.COMC.NOISE,
        mix=cfg.MODEL.COMC.MIX,
        loss=build_loss(cfg),
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
    )
