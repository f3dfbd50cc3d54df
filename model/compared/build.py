"""The compared methods from the configuration, whose only readers in this folder are the functions of this file."""

from collections.abc import Mapping

from yacs.config import CfgNode

from clip.image import ImageTrunk
from clip.load import ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_summed_asl
from model.compared.ml_decoder import LabelDecoder, MLDecoder
from model.method import ModelError

__all__ = ["build_ml_decoder"]

ML_DECODER_SMALLEST = 1e-8  # probability at which the logarithms of ML-Decoder's loss end


def build_ml_decoder(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> MLDecoder:  # fmt: skip
    """ML-Decoder; see `model.build.build_method`."""
    _check_ml_decoder(cfg)
    trunk = ImageTrunk(
        towers.visual, adapted=(), saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions=cfg.MODEL.POSITIONS
    )
    text = TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.TEMPLATE, prompted=(), texts=texts)
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
    hidden, dropout = cfg.MODEL.ML_DECODER.HIDDEN, cfg.MODEL.ML_DECODER.DROPOUT
    rules = (
        ("HEADS", heads, heads >= 1, "at least 1"),
        ("WIDTH", width, width >= 1 and width % max(heads, 1) == 0, f"a positive multiple of the {heads} heads"),
        ("HIDDEN", hidden, hidden >= 1, "at least 1"),
        ("DROPOUT", dropout, 0 <= dropout < 1, "in [0, 1)"),
    )
    for key, value, holds, wanted in rules:
        if not holds:
            raise ModelError(f"MODEL.ML_DECODER.{key} must be {wanted}, not {value!r}")
