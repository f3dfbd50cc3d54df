"""RAM from a configuration. `build_model` and `build_zero_shot` are the only readers of it here."""

from collections.abc import Mapping, Sequence

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk
from clip.load import ClipTowers, load_clip
from clip.prompts import DeepPrompts
from clip.text import NO_TEXTS, TextEncoder
from clip.weights import check_image_size
from model.kcot import KCOT
from model.model import RAM, Labels, ModelError, Recognition
from model.zero_shot import ZeroShotCLIP

__all__ = [
    "RAM",
    "Labels",
    "ModelError",
    "Recognition",
    "ZeroShotCLIP",
    "block_indices",
    "build_model",
    "build_zero_shot",
    "load_towers",
]


def load_towers(cfg) -> ClipTowers:
    """The configured frozen CLIP. Raises `clip.load.WeightsError` where it cannot be had."""
    towers = load_clip(cfg.MODEL.BACKBONE, cfg.MODEL.CLIP_WEIGHTS, seed=cfg.SOLVER.SEED)
    for size in {tuple(cfg.INPUT.SIZE_TRAIN), tuple(cfg.INPUT.SIZE_TEST)}:
        check_image_size(towers.visual, size)
    return towers


def build_model(cfg, towers: ClipTowers, *, seen: int = 0, texts: Mapping[str, str] = NO_TEXTS) -> RAM:
    """RAM around the given towers, with what is trained newly drawn from torch's global random state.

    Args:
        cfg: the configuration.
        towers: the frozen CLIP.
        seen: number of seen labels, which decides the local temperature where MODEL.TEMPERATURE is 0.
        texts: of labels that do not take the template.

    Raises:
        ModelError: naming the key, if a setting is out of its range or names blocks that the towers lack.
    """
    _check_settings(cfg, context=len(towers.text.positional_embedding), seen=seen)
    vision_depth, text_depth = (len(t.transformer.resblocks) for t in (towers.visual, towers.text))
    adapted = block_indices(cfg.MODEL.DEPTH_VISION, vision_depth, "MODEL.DEPTH_VISION")
    prompted = block_indices(cfg.MODEL.DEPTH_TEXT, text_depth, "MODEL.DEPTH_TEXT")
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
    return RAM(
        trunk=trunk,
        text=text,
        adapter=LadderLocalAdapter(
            adapted,
            width=trunk.width,
            joint_width=text.joint_width,
            mask_kernel=cfg.MODEL.KERNEL_SIZE,
            ladder_factor=cfg.MODEL.LADDER_FACTOR,
        ),
        visual_prompts=DeepPrompts(adapted, count=cfg.MODEL.VISION_ADAPT, width=trunk.width),
        label_prompts=DeepPrompts(prompted, count=cfg.MODEL.TEXT_CTX, width=text.width),
        kcot=KCOT(
            scale=towers.logit_scale,
            reg=cfg.MODEL.OT_REG,
            reg_teacher=cfg.MODEL.OT_REGSC,
            presence_temperature=cfg.MODEL.LPD_TEMPERATURE,
            sharpness=cfg.MODEL.TKT_SHARPNESS,
            max_iter=cfg.MODEL.OT_ITER,
            tol=cfg.MODEL.OT_TOL,
            stop=cfg.MODEL.OT_STOP,
        ),
        # The plan has mass 1 / C for each label, so the logits of C labels are C times smaller (Eq. 14).
        local_temperature=cfg.MODEL.TEMPERATURE or 0.1 / seen,
        global_temperature=cfg.MODEL.TEMPERATURE_GLOBAL,
    )


def build_zero_shot(cfg, model: RAM) -> ZeroShotCLIP:
    """Zero-shot CLIP on the towers of `model`, which it shares."""
    return ZeroShotCLIP(
        model.trunk,
        model.text,
        scale=model.kcot.scale,
        input_norm=(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD),
        clip_norm=(cfg.MODEL.CLIP_MEAN, cfg.MODEL.CLIP_STD),
    )


def block_indices(spec: Sequence[int], depth: int, key: str) -> tuple[int, ...]:
    """0-based blocks of a tower: (9, 10, 11) as they are, (-1,) none, (n, -1) the first n.

    Raises:
        ModelError: naming `key`, if the tower of `depth` blocks has no such block.
    """
    blocks = tuple(spec)
    if blocks == (-1,):
        return ()
    if len(blocks) == 2 and blocks[1] == -1 and isinstance(blocks[0], int) and blocks[0] >= 0:
        blocks = tuple(range(blocks[0]))
    if any(not isinstance(b, int) or not 0 <= b < depth for b in blocks) or len(set(blocks)) < len(blocks):
        raise ModelError(f"{key} is {list(spec)}, but the tower has blocks 0 to {depth - 1}, each to be named once")
    return tuple(sorted(blocks))


def _check_settings(cfg, *, context: int, seen: int) -> None:
    """Refuses what would fail in the first batch only, or never and mean nothing."""
    template = cfg.MODEL.TEMPLATE
    one_place = template.count("{}") == 1 and not set("{}") & set(template.replace("{}", ""))
    kernel, prompts, tau = cfg.MODEL.KERNEL_SIZE, cfg.MODEL.TEXT_CTX, cfg.MODEL.TEMPERATURE
    ladder_start, positions = cfg.MODEL.LADDER_START, cfg.MODEL.POSITIONS
    rules = (
        ("OT_REG", cfg.MODEL.OT_REG, cfg.MODEL.OT_REG > 0, "positive"),
        ("OT_REGSC", cfg.MODEL.OT_REGSC, cfg.MODEL.OT_REGSC >= 0, "at least 0"),
        ("OT_ITER", cfg.MODEL.OT_ITER, cfg.MODEL.OT_ITER >= 1, "at least 1"),
        ("OT_STOP", cfg.MODEL.OT_STOP, cfg.MODEL.OT_STOP in ("image", "batch"), "image or batch"),
        ("LPD_TEMPERATURE", cfg.MODEL.LPD_TEMPERATURE, cfg.MODEL.LPD_TEMPERATURE > 0, "positive"),
        ("TEMPERATURE", tau, tau > 0 or (tau == 0 and seen > 0), "positive, or 0 where the seen labels are known"),
        ("TEMPERATURE_GLOBAL", cfg.MODEL.TEMPERATURE_GLOBAL, cfg.MODEL.TEMPERATURE_GLOBAL > 0, "positive"),
        ("LADDER_START", ladder_start, ladder_start in ("embeddings", "block"), "embeddings or block"),
        ("POSITIONS", positions, positions in ("bilinear", "bicubic"), "bilinear or bicubic"),
        ("KERNEL_SIZE", kernel, kernel > 0 and kernel % 2 == 1, "positive and odd"),
        ("VISION_ADAPT", cfg.MODEL.VISION_ADAPT, cfg.MODEL.VISION_ADAPT >= 0, "at least 0"),
        # Start and end of the text need a place each beside the prompts.
        ("TEXT_CTX", prompts, 0 <= prompts <= context - 2, f"between 0 and {context - 2}"),
        ("TEMPLATE", template, one_place, "a text with one {} for the label"),
    )
    for key, value, holds, wanted in rules:
        if not holds:
            raise ModelError(f"MODEL.{key} must be {wanted}, not {value!r}")
