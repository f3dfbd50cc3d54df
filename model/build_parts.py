"""What the builders of several methods share: frozen towers, learned contexts, recipes, how settings are refused."""

from collections.abc import Iterable, Mapping, Sequence

from yacs.config import CfgNode

from clip.contexts import Context, random_context, word_context
from clip.image import ImageTrunk
from clip.load import ClipTowers
from clip.text import NO_TEXTS, TextEncoder
from model.method import ModelError, Recipe

__all__ = [
    "build_context", "fewest_regions", "frozen_text", "frozen_trunk", "recipe_of", "refuse_impossible",
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


def frozen_trunk(cfg: CfgNode, towers: ClipTowers, adapted: Sequence[int] = ()) -> ImageTrunk:
    """The image tower as it is, tapped behind the blocks `adapted`."""
    return ImageTrunk(
        towers.visual, adapted=adapted, saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions=cfg.MODEL.POSITIONS
    )


def frozen_text(cfg: CfgNode, towers: ClipTowers, texts: Mapping[str, str] = NO_TEXTS) -> TextEncoder:
    """The text tower as it is."""
    return TextEncoder(towers.text, towers.tokenize, template=cfg.MODEL.TEMPLATE, prompted=(), texts=texts)


def fewest_regions(cfg: CfgNode, towers: ClipTowers) -> int:
    """Patches of the smaller of training and test images."""
    rows, columns = towers.visual.patch_size
    sizes = (cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST)
    return min((height // rows) * (width // columns) for height, width in sizes)


def build_context(cfg: CfgNode, text: TextEncoder, *, words: str = "", labels: int = 0) -> Context:
    """A context before it is learned.

    Args:
        cfg: the configuration, of which MODEL.CONTEXT is read.
        text: the text tower.
        words: that it starts as, a vector for each of their tokens; "": vectors drawn at random.
        labels: of so many labels each has a context of its own; 0: all share one.

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
    return Context(initial, recompute=cfg.MODEL.CONTEXT.RECOMPUTE)
