"""RAM and its matchers from the configuration; `MATCHERS` is the table that MODEL.MATCHER chooses from."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from yacs.config import CfgNode

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk
from clip.load import ClipTowers
from clip.prompts import DeepPrompts
from clip.text import NO_TEXTS, TextEncoder
from loss.build import build_loss
from model.build_parts import build_context, recipe_of, refuse_impossible, require_vit
from model.kcot import KCOT, teacher_assignment
from model.labels import ContextPrompts, DeepLabelPrompts, DualContextPrompts, LabelPrompts
from model.matchers import Average, Bipartite, Matcher, Reweight
from model.method import ModelError, chosen
from model.model import RAM
from model.ot_native import solve_natively
from model.ot_solver import sinkhorn
from model.ot_triton import FusedKCOT
from model.peaks import PeakRAM
from model.pot_solver import Unbalanced, solve_with_pot

__all__ = ["MATCHERS", "block_indices", "build_peaks", "build_ram"]


def build_ram(
    cfg: CfgNode,
    towers: ClipTowers,
    *,
    seen: int = 0,
    texts: Mapping[str, str] = NO_TEXTS,
    kind: Callable[..., RAM] = RAM,
) -> RAM:
    """RAM or a kind of it; see `build_method`. `seen` decides the local temperature where MODEL.TEMPERATURE is 0."""
    require_vit(cfg, towers)
    _check_settings(cfg, context=len(towers.text.positional_embedding), seen=seen)
    vision_depth, text_depth = (len(t.transformer.resblocks) for t in (towers.visual, towers.text))
    adapted = block_indices(cfg.MODEL.DEPTH_VISION, vision_depth, "MODEL.DEPTH_VISION")
    deep = cfg.MODEL.LABEL_PROMPTING == "deep"
    prompted = block_indices(cfg.MODEL.DEPTH_TEXT, text_depth, "MODEL.DEPTH_TEXT") if deep else ()
    saa_blocks = block_indices(cfg.MODEL.SAA_LAYER, vision_depth, "MODEL.SAA_LAYER")
    from_block = cfg.MODEL.LADDER_START == "block"
    trunk = ImageTrunk(
        towers.visual,
        adapted=adapted,
        saa_blocks=saa_blocks,
        ladder_factor=cfg.MODEL.LADDER_FACTOR,
        ladder_start=min((*saa_blocks, *adapted), default=0) if from_block else 0,
        positions=cfg.MODEL.POSITIONS,
    )
    text = TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.TEMPLATE, prompted=prompted, texts=texts)
    return kind(
        trunk=trunk,
        text=text,
        adapter=LadderLocalAdapter(
            adapted if cfg.MODEL.TSS else (),
            width=trunk.width,
            joint_width=text.joint_width,
            mask_kernel=cfg.MODEL.KERNEL_SIZE,
        ),
        visual_prompts=DeepPrompts(adapted, count=cfg.MODEL.VISION_ADAPT, width=trunk.width),
        label_prompts=_label_prompts(cfg, text, prompted),
        matcher=chosen(MATCHERS, cfg.MODEL.MATCHER, "MATCHER")(cfg, towers.logit_scale),
        teach=partial(teacher_assignment, scale=towers.logit_scale, sharpness=cfg.MODEL.TKT_SHARPNESS),
        loss=build_loss(cfg),
        loss_weight=cfg.MODEL.LOSS_WEIGHT,
        recipe=recipe_of(cfg),
        # The plan has mass 1 / C for each label, so the logits of C labels are C times smaller (Eq. 14).
        local_temperature=cfg.MODEL.TEMPERATURE or 0.1 / seen,
        global_temperature=cfg.MODEL.TEMPERATURE_GLOBAL,
    )


def _label_prompts(cfg: CfgNode, text: TextEncoder, prompted: Sequence[int]) -> LabelPrompts:
    """RAM's own label prompts, or those that Table 7 puts in their place."""
    if cfg.MODEL.LABEL_PROMPTING == "deep":
        return DeepLabelPrompts(prompted, count=cfg.MODEL.TEXT_CTX, width=text.width)
    context = build_context(cfg, text, words=cfg.MODEL.CONTEXT.WORDS)
    if cfg.MODEL.LABEL_PROMPTING == "coop":
        return ContextPrompts(context)
    return DualContextPrompts(context, build_context(cfg, text))


def build_peaks(cfg: CfgNode, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS) -> RAM:
    """RAM with peaks; see `build_method`."""
    kind = partial(PeakRAM, sharpness=cfg.MODEL.PEAKS.SHARPNESS, temperature=cfg.MODEL.PEAKS.TEMPERATURE)
    return build_ram(cfg, towers, seen=seen, texts=texts, kind=kind)


def _kcot(cfg: CfgNode, scale: float, *, presence: bool, teacher: bool) -> KCOT:
    """KCOT, or what is left of it without label presence (LPD), the teacher (TKT), or both."""
    max_iter, tol = cfg.MODEL.OT_ITER, cfg.MODEL.OT_TOL
    kinds: dict[str, Callable[..., KCOT]] = {
        "sinkhorn": partial(KCOT, solve=partial(sinkhorn, max_iter=max_iter, tol=tol or None, stop=cfg.MODEL.OT_STOP)),
        "native": partial(KCOT, solve=partial(solve_natively, max_iter=max_iter, tol=tol or None)),
        "pot": partial(KCOT, solve=partial(solve_with_pot, max_iter=max_iter, tol=tol)),
        "triton": partial(FusedKCOT, max_iter=max_iter, tol=tol or None),
    }
    return kinds[cfg.MODEL.OT_SOLVER](
        scale=scale,
        reg=cfg.MODEL.OT_REG,
        reg_teacher=cfg.MODEL.OT_REGSC if teacher else None,
        presence_temperature=cfg.MODEL.LPD_TEMPERATURE if presence else None,
    )


def _unbalanced(cfg: CfgNode, scale: float) -> Unbalanced:
    return Unbalanced(
        scale=scale, reg=cfg.MODEL.OT_REG, relax=cfg.MODEL.OT_RELAX, max_iter=cfg.MODEL.OT_ITER, tol=cfg.MODEL.OT_TOL
    )


MATCHERS: dict[str, Callable[[Any, float], Matcher]] = {  # configuration, CLIP's logit scale -> matcher
    "kcot": partial(_kcot, presence=True, teacher=True),
    "ot": partial(_kcot, presence=False, teacher=False),
    "ot+lpd": partial(_kcot, presence=True, teacher=False),
    "ot+tkt": partial(_kcot, presence=False, teacher=True),
    "unbalanced": _unbalanced,
    "average": lambda cfg, scale: Average(),  # noqa: ARG005
    "reweight": lambda cfg, scale: Reweight(cfg.MODEL.REWEIGHT_SHARPNESS),  # noqa: ARG005
    "bipartite": lambda cfg, scale: Bipartite(scale),  # noqa: ARG005
}


def block_indices(spec: Sequence[int | str], depth: int, key: str) -> tuple[int, ...]:
    """0-based blocks of a tower of `depth` blocks, in order.

    ("none",), ("all",), ("first", n), ("last", n), or their indices. The release's spellings are understood too: (-1,)
    for none and (n, -1) for the first n.

    Raises:
        ModelError: naming `key`, if the tower has no such block.
    """
    blocks, every = tuple(spec), tuple(range(depth))
    if blocks in ((-1,), ("none",)):
        return ()
    if blocks == ("all",):
        return every
    if len(blocks) == 2 and isinstance(blocks[1], int) and blocks[0] in ("first", "last") and 0 <= blocks[1] <= depth:
        return every[: blocks[1]] if blocks[0] == "first" else every[depth - blocks[1] :]
    if len(blocks) == 2 and blocks[1] == -1 and isinstance(blocks[0], int) and blocks[0] >= 0:
        blocks = tuple(range(blocks[0]))
    indices = [block for block in blocks if isinstance(block, int) and 0 <= block < depth]
    if len(indices) < len(blocks) or len(set(indices)) < len(indices):
        raise ModelError(f"{key} is {list(spec)}, but the tower has blocks 0 to {depth - 1}, each to be named once")
    return tuple(sorted(indices))


def _check_settings(cfg: CfgNode, *, context: int, seen: int) -> None:
    """Refuses what would fail in the first batch only, or never and mean nothing."""
    prompts, tau, stop, solver = cfg.MODEL.TEXT_CTX, cfg.MODEL.TEMPERATURE, cfg.MODEL.OT_STOP, cfg.MODEL.OT_SOLVER
    waits = stop == "batch" and solver in ("native", "triton")
    refuse_impossible((
        ("TEMPERATURE", tau, tau > 0 or seen > 0, "positive, or auto where the seen labels are known"),
        ("OT_STOP", stop, not waits, f"image with MODEL.OT_SOLVER {solver}"),
        # Start and end of the text need a place each beside the prompts.
        ("TEXT_CTX", prompts, prompts <= context - 2, f"between 0 and {context - 2}"),
    ))  # fmt: skip
