"""What the builders of several methods share: frozen towers, learned contexts, recipes, how settings are refused."""

from collections.abc import Iterable, Mapping, Sequence

from yacs.config import CfgNode

from clip.contexts import Context, random_context, word_context
from clip.image import ImageTrunk
from clip.load import ClipTowers
from clip.regions import is_resnet, region_size
from clip.resnet import ResNetTrunk
from clip.text import NO_TEXTS, TextEncoder
from clip.trunk import Trunk
from model.method import ModelError, Recipe

__all__ = [
    "build_context", "build_negative", "fewest_regions", "frozen_text", "frozen_trunk", "frozen_vit", "recipe_of",
    "refuse_impossible", "require_seen", "require_vit",
]  # fmt: skip


def refuse_impossible(rules: Iterable[tuple[str, object, bool, str]]) -> None:
    """Refuses the first value that does not hold.

    Args:
        rules: key below MODEL, value, whether it holds, and what is wanted.

    Raises:
        ModelError: naming the key.
    """
    for key, value, holds, wanted in rules:
        if not holds:
            raise ModelError(f"MODEL.{key} must be {wanted}, not {value!r}")


def recipe_of(cfg: CfgNode) -> Recipe:
    """The numbers of SOLVER that groups of parameters are made from."""
    return Recipe(
        lr=cfg.SOLVER.BASE_LR, adapter_factor=cfg.SOLVER.ADAPTER_FACTOR, lr_sgd=cfg.SOLVER.BASE_LR_SGD,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY, weight_decay_sgd=cfg.SOLVER.WEIGHT_DECAY_SGD,
        momentum=cfg.SOLVER.MOMENTUM,
    )  # fmt: skip


def require_seen(method: str, labels: Sequence[str], seen: int, *, learned: str, way_out: str) -> None:
    """Refuses labels of which some would have something of their own that nothing trains.

    Args:
        method: MODEL.METHOD.
        labels: of the method, the seen ones first.
        seen: how many are; 0: not known.
        learned: what each label has.
        way_out: what to do where some are unseen.

    Raises:
        ModelError: if there are no labels, or some are unseen.
    """
    if not labels:
        raise ModelError(f"MODEL.METHOD {method} has {learned} of each label's own, and no labels are known here")
    if 0 < seen < len(labels):
        raise ModelError(
            f"MODEL.METHOD {method} learns {learned} of each label's own, and {len(labels) - seen} of {len(labels)} "
            f"labels are unseen, {labels[seen]!r} among them: {way_out}, or set DATASETS.CHOOSE none"
        )


def require_vit(cfg: CfgNode, towers: ClipTowers) -> None:
    """Refuses a ResNet for a method that takes the blocks of a ViT apart.

    Raises:
        ModelError: naming both keys.
    """
    if is_resnet(towers.visual):
        raise ModelError(
            f"MODEL.METHOD {cfg.MODEL.METHOD} needs the blocks of a ViT, and MODEL.BACKBONE {cfg.MODEL.BACKBONE} is a "
            "ResNet: set MODEL.BACKBONE to a ViT such as ViT-B/16, or MODEL.METHOD to one that takes either "
            "(docs/methods.md), such as dualcoop"
        )


def frozen_trunk(cfg: CfgNode, towers: ClipTowers, *, pool_positions: bool = True) -> Trunk:
    """The image tower as it is, whichever it is.

    Args:
        cfg: the configuration, of which MODEL.POSITIONS and MODEL.REGIONS are read.
        towers: the frozen CLIP.
        pool_positions: whether the attention pool of a ResNet has its positional embeddings; a ViT always has its own.

    Raises:
        ModelError: naming the key, where MODEL.REGIONS is of a ViT alone.
    """
    if is_resnet(towers.visual):
        wanted = f"values with the ResNet {cfg.MODEL.BACKBONE}"
        refuse_impossible([("REGIONS", cfg.MODEL.REGIONS, cfg.MODEL.REGIONS == "values", wanted)])
        return ResNetTrunk(towers.visual, positions=cfg.MODEL.POSITIONS if pool_positions else None)
    return frozen_vit(cfg, towers)


def frozen_vit(cfg: CfgNode, towers: ClipTowers, adapted: Sequence[int] = ()) -> ImageTrunk:
    """The image tower as it is, tapped behind the blocks `adapted`; ModelError where it is a ResNet."""
    require_vit(cfg, towers)
    return ImageTrunk(
        towers.visual, adapted=adapted, saa_blocks=(), ladder_factor=1.0, ladder_start=0,
        positions=cfg.MODEL.POSITIONS, regions=cfg.MODEL.REGIONS,
    )  # fmt: skip


def frozen_text(cfg: CfgNode, towers: ClipTowers, texts: Mapping[str, str] = NO_TEXTS) -> TextEncoder:
    """The text tower as it is."""
    return TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.TEMPLATE, prompted=(), texts=texts)


def fewest_regions(cfg: CfgNode, towers: ClipTowers) -> int:
    """Regions of the smaller of training and test images."""
    height, width = region_size(towers.visual)
    return min((h // height) * (w // width) for h, w in (cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST))


def build_context(
    cfg: CfgNode, text: TextEncoder, *, words: str = "", labels: int = 0, named: bool = True
) -> Context:  # fmt: skip
    """A context before it is learned.

    Args:
        cfg: the configuration, of which MODEL.CONTEXT is read.
        text: the text tower.
        words: that it starts as, a vector for each of their tokens; "": vectors drawn at random.
        labels: of so many labels each has a context of its own; 0: all share one.
        named: whether the names of labels stand behind it.

    Raises:
        ModelError: naming the key, if there are no vectors, or no place for a name beside them.
    """
    count, most = cfg.MODEL.CONTEXT.COUNT, len(text.text.positional_embedding) - 3  # start, one token, end
    initial = word_context(text, words) if words.strip() else None
    if initial is not None and len(initial) > most:
        raise ModelError(f"MODEL.CONTEXT.WORDS must be {most} tokens at most, not {len(initial)}")
    if initial is None and not 1 <= count <= most:
        raise ModelError(f"MODEL.CONTEXT.COUNT must be between 1 and {most}, not {count}")
    if initial is None:
        drawn = random_context(max(1, labels) * count, text.width)
        initial = drawn.unflatten(0, (labels, count)) if labels else drawn
    elif labels:
        initial = initial.repeat(labels, 1, 1)
    return Context(initial, recompute=cfg.MODEL.CONTEXT.RECOMPUTE, named=named)


def build_negative(cfg: CfgNode, text: TextEncoder, labels: int) -> Context:
    """The negative contexts of so many labels, as MODEL.CONTEXT.NEGATIVE says; see `build_context`."""
    named = cfg.MODEL.CONTEXT.NEGATIVE == "names"
    return build_context(cfg, text, words="" if named else cfg.MODEL.CONTEXT.WORDS, labels=labels, named=named)
