"""What every key may be: one table of types, lengths, ranges and choices, for files, overrides and checkpoints alike.

What depends on more than the value itself (the towers, the labels, another key) is checked where it is used. Choices
that can be added to from outside (MODEL.METHOD, MATCHER, LOSS_TYPE, SOLVER.SCHEDULE) are texts here. Upper bounds are
far beyond all use: they refuse slips of the finger before they fill the memory.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from files import is_writable

__all__ = ["SCHEMA", "Rule", "violation"]

LONGEST = 4096  # characters of a text, as of a path on most systems


class Rule(NamedTuple):
    """What a value has to be."""

    holds: Callable[[Any], bool]
    words: str  # behind "must be"


def number(least: float, most: float, *, open_at: str = "") -> Rule:
    """A finite number; `open_at` is "least" or "most" where that bound itself is excluded."""

    def holds(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return least <= value <= most and not (open_at and value == {"least": least, "most": most}[open_at])

    left, right = ("(" if open_at == "least" else "["), (")" if open_at == "most" else "]")
    between = f"in {left}{least:g}, {most:g}{right}" if open_at else f"between {least:g} and {most:g}"
    return Rule(holds, f"a number {between}")


def whole(least: int, most: int) -> Rule:
    """A whole number."""

    def holds(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return Rule(holds, f"a whole number between {least} and {most}")


def odd(most: int) -> Rule:
    """An odd positive number."""
    within = whole(1, most)
    return Rule(lambda value: within.holds(value) and value % 2 == 1, f"positive and odd, at most {most}")


def one_of(*choices: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: isinstance(value, str) and value in choices, f"one of {', '.join(choices)}")


def several(count: int, rule: Rule) -> Rule:
    """So many values of a kind."""

    def holds(value: Any) -> bool:
        return isinstance(value, tuple | list) and len(value) == count and all(map(rule.holds, value))

    return Rule(holds, f"{count} values, each {rule.words}")


def rising(rule: Rule) -> Rule:
    """Two values, the lower one first."""
    pair = several(2, rule)
    return Rule(lambda value: pair.holds(value) and value[0] <= value[1], f"{pair.words}, the lower one first")


def or_auto(rule: Rule, auto: float) -> Rule:
    """A value, or what stands for `auto` (`configs/words.py`)."""
    return Rule(lambda value: value == auto or rule.holds(value), f"{rule.words}, or auto")


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > LONGEST or "\0" in value:
        return False
    return is_writable(value)


def _is_path(value: Any) -> bool:
    return _is_text(value) and (not value.startswith("~") or os.path.expanduser(value) != value)


def _is_template(value: Any) -> bool:
    return _is_text(value) and value.count("{}") == 1 and not set("{}") & set(value.replace("{}", ""))


def _is_blocks(value: Any) -> bool:
    words = isinstance(value, tuple | list) and 0 < len(value) <= LONGEST
    return words and all(isinstance(item, str | int) and not isinstance(item, bool) for item in value)


TRUTH = Rule(lambda value: isinstance(value, bool), "True or False")
TEXT = Rule(_is_text, f"a text of at most {LONGEST} characters, without NUL and halves of characters")
PATH = Rule(_is_path, f"a path of at most {LONGEST} characters, where it begins with ~ of a user that there is")
TEXTS = Rule(lambda v: isinstance(v, tuple | list) and all(map(_is_text, v)), "texts, such as ('cat', 'dog')")
TEMPLATE = Rule(_is_template, "a text with one {} for the label")
BLOCKS = Rule(_is_blocks, "first n, last n, all, none, or the indices of blocks, such as (10, 11)")
FRACTION = number(0, 1)
PART = number(0, 1, open_at="most")  # less than all
POSITIVE = number(0, 1e6, open_at="least")
LARGE = number(0, 1e6)
RATE = number(0, 1e3)
COUNT = whole(0, 10**9)
PIXELS = whole(0, 10**4)

SCHEMA: Mapping[str, Rule] = {
    "DEVICE": TEXT,
    "COMPILE": one_of("off", "on", "graphs"),
    "OUTPUT_DIR": PATH,
    "WANDB": TRUTH,
    "WANDB_PROJ": TEXT,
    "MODEL.METHOD": TEXT,
    "MODEL.BACKBONE": TEXT,
    "MODEL.CLIP_WEIGHTS": PATH,
    "MODEL.CLIP_MEAN": several(3, number(-1e3, 1e3)),
    "MODEL.CLIP_STD": several(3, number(0, 1e3, open_at="least")),
    "MODEL.POSITIONS": one_of("bilinear", "bicubic"),
    "MODEL.REGIONS": one_of("values", "saa"),
    "MODEL.TEMPLATE": TEMPLATE,
    "MODEL.DEPTH_VISION": BLOCKS,
    "MODEL.DEPTH_TEXT": BLOCKS,
    "MODEL.SAA_LAYER": BLOCKS,
    "MODEL.LADDER_START": one_of("embeddings", "block"),
    "MODEL.TSS": TRUTH,
    "MODEL.TEXT_CTX": whole(0, 10**4),
    "MODEL.LABEL_PROMPTING": one_of("deep", "coop", "dualcoop"),
    "MODEL.VISION_ADAPT": whole(0, 10**4),
    "MODEL.LADDER_FACTOR": LARGE,
    "MODEL.KERNEL_SIZE": odd(99),
    "MODEL.TEMPERATURE": LARGE,  # 0: auto
    "MODEL.TEMPERATURE_GLOBAL": POSITIVE,
    "MODEL.LPD_TEMPERATURE": POSITIVE,
    "MODEL.TKT_SHARPNESS": LARGE,
    "MODEL.MATCHER": TEXT,
    "MODEL.REWEIGHT_SHARPNESS": LARGE,
    "MODEL.OT_SOLVER": one_of("sinkhorn", "native", "triton", "pot"),
    "MODEL.OT_RELAX": POSITIVE,
    "MODEL.OT_REG": POSITIVE,
    "MODEL.OT_REGSC": LARGE,
    "MODEL.OT_ITER": whole(1, 10**6),
    "MODEL.OT_TOL": LARGE,
    "MODEL.OT_STOP": one_of("image", "batch"),
    "MODEL.LOSS_TYPE": TEXT,
    "MODEL.LOSS_WEIGHT": LARGE,
    "MODEL.USE_EMA": TRUTH,
    "MODEL.EMA_DECAY": or_auto(PART, -1.0),
    "MODEL.EMA_RESET": TRUTH,
    "MODEL.PEAKS.SHARPNESS": POSITIVE,
    "MODEL.PEAKS.TEMPERATURE": POSITIVE,
    "MODEL.ML_DECODER.WIDTH": whole(1, 10**5),
    "MODEL.ML_DECODER.HEADS": whole(1, 10**4),
    "MODEL.ML_DECODER.HIDDEN": whole(1, 10**5),
    "MODEL.ML_DECODER.DROPOUT": PART,
    "MODEL.BIAM.CHANNELS": whole(1, 10**5),
    "MODEL.BIAM.HEADS": whole(1, 10**4),
    "MODEL.BIAM.TOP_K": whole(1, 10**6),
    "MODEL.MKT.STAGE": whole(1, 2),
    "MODEL.MKT.BLOCKS": whole(1, 10**3),
    "MODEL.MKT.TOP_K": whole(1, 10**6),
    "MODEL.MKT.TEMPLATE": TEMPLATE,
    "MODEL.MKT.DISTILLATION": LARGE,
    "MODEL.MKT.LAYER_DECAY": number(0, 1, open_at="least"),
    "MODEL.ZERO_SHOT.SCORE": one_of("global", "local", "both"),
    "MODEL.TAGCLIP.TEMPLATES": one_of("official", "one"),
    "MODEL.TAGCLIP.BACKGROUND": TEXTS,
    "MODEL.TAGCLIP.BLOCKS": whole(1, 10**3),
    "MODEL.TAGCLIP.VOTES": FRACTION,
    "MODEL.TAGCLIP.THRESHOLD": FRACTION,
    "MODEL.COMC.SENTENCES": whole(0, 10**7),
    "MODEL.COMC.BATCH": whole(1, 10**6),
    "MODEL.COMC.NOISE": LARGE,
    "MODEL.COMC.MIX": FRACTION,
    "MODEL.CONTEXT.COUNT": whole(0, 10**4),
    "MODEL.CONTEXT.WORDS": TEXT,
    "MODEL.CONTEXT.NEGATIVE": one_of("names", "nothing"),
    "MODEL.CONTEXT.RECOMPUTE": TRUTH,
    "MODEL.DUALCOOP.SHARPNESS": POSITIVE,
    "MODEL.DUALCOOP.SCALE": POSITIVE,
    "MODEL.DUALCOOP.POOLING": one_of("reweight", "average"),
    "MODEL.DUALCOOP.LABELS_PER_STEP": COUNT,
    "MODEL.TRM.HIDDEN": whole(1, 10**5),
    "MODEL.TRM.DROPOUT": PART,
    "MODEL.TRM.ATTENTION": one_of("softmax", "sigmoid"),
    "MODEL.TRM.SELF_ATTENTION": TRUTH,
    "MODEL.TRM.QUERIES": one_of("random", "texts"),
    "MODEL.TRM.SCALE": POSITIVE,
    "MODEL.TRM.REGION_WEIGHT": LARGE,
    "MODEL.TRM.KD_WEIGHT": LARGE,
    "MODEL.TRM.KD_TEMPERATURE": POSITIVE,
    "MODEL.TRM.KD_REDUCTION": one_of("mean", "sum"),
    "MODEL.TRM.CONTRAST_WEIGHT": LARGE,
    "MODEL.TRM.CONTRAST_TEMPERATURE": POSITIVE,
    "MODEL.TRM.QUEUE": whole(1, 10**5),
    "MODEL.TRM.TOP_K": whole(1, 10**6),
    "MODEL.TRM.MOMENTUM": FRACTION,
    "MODEL.TRM.PSEUDO_LABELS": one_of("both", "visual", "text", "none"),
    "MODEL.TRM.PSEUDO_START": whole(1, 10**6),
    "MODEL.TRM.UNKNOWN": one_of("ignored", "absent", "always-absent"),
    "MODEL.TRM.CONTINUED": TRUTH,
    "INPUT.SIZE_TRAIN": several(2, whole(1, 10**4)),
    "INPUT.SIZE_TEST": several(2, whole(1, 10**4)),
    "INPUT.PIXEL_MEAN": several(3, number(-1e3, 1e3)),
    "INPUT.PIXEL_STD": several(3, number(0, 1e3, open_at="least")),
    "INPUT.EXIF_ROTATION": TRUTH,
    "INPUT.MAX_PIXELS": whole(1, 178_956_970),
    "INPUT.AUGMENT": TRUTH,
    "INPUT.PROB": FRACTION,
    "INPUT.RE_PROB": FRACTION,
    "INPUT.PADDING": PIXELS,
    "INPUT.AUG_PROB": FRACTION,
    "INPUT.CROP": number(0, 0.5, open_at="most"),
    "INPUT.BLUR": number(0, 100),
    "INPUT.CONTRAST": rising(number(0, 100)),
    "INPUT.AFFINE": PART,
    "INPUT.ROTATION": number(0, 360),
    "INPUT.NOISE": FRACTION,
    "INPUT.MULTIPLY": rising(number(0, 100)),
    "INPUT.PER_CHANNEL": FRACTION,
    "DATASETS.NAMES": TEXT,
    "DATASETS.ROOT_DIR": PATH,
    "DATASETS.IMAGE_DIR": PATH,
    "DATASETS.TRAIN": PATH,
    "DATASETS.VAL": PATH,
    "DATASETS.TEST": PATH,
    "DATASETS.TEST_ZSL": PATH,
    "DATASETS.VAL_FRACTION": or_auto(PART, -1.0),
    "DATASETS.TEST_FRACTION": PART,
    "DATASETS.SEEN": TEXTS,
    "DATASETS.UNSEEN": TEXTS,
    "DATASETS.CHOOSE": one_of("files", "frequent", "random", "none"),
    "DATASETS.UNSEEN_FRACTION": FRACTION,
    "DATASETS.SPLIT_SEED": whole(0, 2**63 - 1),
    "DATASETS.SEPARATOR": TEXT,
    "DATASETS.EMPTY_CELL": one_of("absent", "unknown"),
    "DATASETS.UNKNOWN": one_of("keep", "absent"),
    "DATASETS.KNOWN": FRACTION,  # 0: single
    "DATASETS.KNOWN_SEED": whole(0, 2**32 - 1),
    "DATASETS.SKIP_MISSING": TRUTH,
    "DATASETS.MERGE_CASE": TRUTH,
    "DATASETS.LABELS": PATH,
    "DATASETS.PACK": PATH,
    "DATASETS.SUBSET": COUNT,
    "DATALOADER.NUM_WORKERS": whole(0, 1024),
    "DATALOADER.RESHUFFLE": TRUTH,
    "DATALOADER.AUGMENT_ON": one_of("workers", "device"),
    "DATALOADER.READ_TRUNCATED": TRUTH,
    "DATALOADER.CACHE": TRUTH,
    "DATALOADER.SKIP_BROKEN": TRUTH,
    "SOLVER.BASE_LR": RATE,
    "SOLVER.ADAPTER_FACTOR": RATE,
    "SOLVER.BASE_LR_SGD": RATE,
    "SOLVER.WEIGHT_DECAY": RATE,
    "SOLVER.WEIGHT_DECAY_SGD": RATE,
    "SOLVER.MOMENTUM": PART,
    "SOLVER.IMS_PER_BATCH": whole(1, 10**6),
    "SOLVER.INIT": PATH,
    "SOLVER.MAX_EPOCHS": whole(1, 10**6),
    "SOLVER.SCHEDULE": TEXT,
    "SOLVER.LR_PERIOD": one_of("epoch", "step"),
    "SOLVER.WARMUP_EPOCHS": LARGE,
    "SOLVER.WARMUP_LR": RATE,
    "SOLVER.MIN_LR": RATE,
    "SOLVER.SCHEDULER_MAX_EPOCHS": whole(0, 10**6),  # 0: auto
    "SOLVER.EVAL_PERIOD": whole(1, 10**6),
    "SOLVER.SELECT": one_of("last", "best"),
    "SOLVER.PATIENCE": whole(0, 10**6),
    "SOLVER.LOG_PERIOD": whole(1, 10**9),
    "SOLVER.CHECKPOINT_PERIOD": COUNT,
    "SOLVER.SEED": whole(0, 2**63 - 1),
    "SOLVER.AMP": one_of("fp16", "bf16", "off"),
    "SOLVER.NONFINITE": one_of("skip", "stop"),
    "SOLVER.GAMMA_NEG": number(0, 100),
    "SOLVER.GAMMA_POS": number(0, 100),
    "SOLVER.CLIP": PART,
    "TEST.WEIGHT": PATH,
    "TEST.IMS_PER_BATCH": whole(1, 10**6),
    "TEST.SPLIT": one_of("test", "val"),
    "TEST.PROTOCOLS": TEXTS,
    "TEST.SAVE_SCORES": TRUTH,
    "TEST.AMP": one_of("fp16", "bf16", "off"),
}


def violation(values: Mapping[str, Any]) -> str | None:
    """What is wrong with the first value that is not what it has to be, in one line; None if all are.

    Args:
        values: by their whole keys, each one of the `SCHEMA`.
    """
    for key, value in values.items():
        rule = SCHEMA[key]
        if not rule.holds(value):
            shown = repr(value)
            return f"{key} must be {rule.words}, not {shown if len(shown) <= 80 else f'{shown[:77]}...'}"
    return None
