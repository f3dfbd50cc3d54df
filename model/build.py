"""Methods from the configuration, whose only readers in this folder are the files named build.

`METHODS` and `MATCHERS` (of `build_ram.py`) are the tables that MODEL.METHOD and MODEL.MATCHER choose from; entering a
function adds one (`model/method.py`, `model/matchers.py`). Names of methods that have nothing to train stand in
`UNTRAINED` too, those of methods whose labels are fixed in training in `FIXED_LABELS`.
"""

from collections.abc import Callable, Mapping, Sequence

from yacs.config import CfgNode

from clip.load import ClipTowers, load_clip
from clip.regions import check_image_size
from clip.text import NO_TEXTS
from model.build_parts import frozen_text, frozen_trunk
from model.build_ram import MATCHERS, block_indices, build_peaks, build_ram
from model.compared.build import build_biam, build_comc, build_mkt, build_ml_decoder, build_tagclip
from model.compared.build_prompted import build_coop, build_dual_coop, build_dual_coop_partial
from model.method import Method, chosen
from model.trm.build import build_trm
from model.zero_shot import ZeroShotCLIP

__all__ = [
    "FIXED_LABELS", "MATCHERS", "METHODS", "UNTRAINED", "block_indices", "build_method", "build_zero_shot",
    "load_towers",
]  # fmt: skip


def load_towers(cfg: CfgNode) -> ClipTowers:
    """The configured frozen CLIP. Raises `clip.load.WeightsError` where it cannot be had."""
    towers = load_clip(cfg.MODEL.BACKBONE, cfg.MODEL.CLIP_WEIGHTS, seed=cfg.SOLVER.SEED)
    for size in {tuple(cfg.INPUT.SIZE_TRAIN), tuple(cfg.INPUT.SIZE_TEST)}:
        check_image_size(towers.visual, size)
    return towers


def build_method(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS, labels: Sequence[str] = ()
) -> Method:
    """The configured method around the given towers; what is trained is drawn from torch's global random state.

    Args:
        cfg: the configuration.
        towers: the frozen CLIP.
        seen: number of seen labels; 0: not known.
        texts: of labels that do not take the template.
        labels: all that the method will be asked for, seen and unseen; given on to methods in `FIXED_LABELS` only.

    Raises:
        ModelError: naming the key, if a setting is out of its range or names blocks that the towers lack.
        loss.build.LossError: likewise, for the loss.
    """
    name = cfg.MODEL.METHOD
    known = {"labels": labels} if name in FIXED_LABELS else {}
    return chosen(METHODS, name, "METHOD")(cfg, towers, seen=seen, texts=texts, **known)


def build_zero_shot(
    cfg: CfgNode, towers: ClipTowers, *, texts: Mapping[str, str] = NO_TEXTS, score: str = "global"
) -> ZeroShotCLIP:  # fmt: skip
    """Zero-shot CLIP, by its global feature the row beside every other method; see `build_method`.

    Args:
        cfg: the configuration.
        towers: the frozen CLIP.
        texts: of labels that do not take the template.
        score: a key of `model.zero_shot.TITLES`.
    """
    return ZeroShotCLIP(
        frozen_trunk(cfg, towers, pool_positions=score == "global"),
        frozen_text(cfg, towers, texts),
        scale=towers.logit_scale,
        input_norm=(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD),
        clip_norm=(cfg.MODEL.CLIP_MEAN, cfg.MODEL.CLIP_STD),
        score=score,
    )


def _zero_shot(
    cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS  # noqa: ARG001
) -> ZeroShotCLIP:  # fmt: skip
    """Zero-shot CLIP as a method of its own, by whatever MODEL.ZERO_SHOT.SCORE says."""
    return build_zero_shot(cfg, towers, texts=texts, score=cfg.MODEL.ZERO_SHOT.SCORE)


METHODS: dict[str, Callable[..., Method]] = {
    "ram": build_ram,
    "ram-peaks": build_peaks,
    "zero-shot": _zero_shot,
    "coop": build_coop,
    "dualcoop": build_dual_coop,
    "dualcoop-partial": build_dual_coop_partial,
    "ml-decoder": build_ml_decoder,
    "biam": build_biam,
    "mkt": build_mkt,
    "tagclip": build_tagclip,
    "comc": build_comc,
    "trm-ml": build_trm,
}
UNTRAINED = {"zero-shot", "tagclip"}  # those that are tested without a checkpoint
# Those that can be asked for no other labels than were named when they were built.
FIXED_LABELS = {"comc", "dualcoop-partial", "trm-ml"}
