"""Values as people write them, in YAML or on the command line, to the types of the keys' defaults.

Whole numbers for fractions, `true` for True, `cat,dog` for two names, and words in the place of special values:
`MODEL.TEMPERATURE auto`, `DATASETS.KNOWN single`, `MODEL.SAA_LAYER all`, `first 9`, `last 3`, `none`.
"""

import re

from yacs.config import CfgNode

__all__ = ["default_of", "typed"]

TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
BLOCKS = ("MODEL.DEPTH_VISION", "MODEL.DEPTH_TEXT", "MODEL.SAA_LAYER")  # keys that name blocks of a tower
AUTO_NUMBER = -1.0  # for keys that may be 0
NUMBERS = {  # keys of numbers that know a word, and what stands for it
    "MODEL.TEMPERATURE": ("auto", 0.0), "MODEL.EMA_DECAY": ("auto", AUTO_NUMBER),
    "SOLVER.SCHEDULER_MAX_EPOCHS": ("auto", 0), "DATASETS.VAL_FRACTION": ("auto", AUTO_NUMBER),
    "DATASETS.KNOWN": ("single", 0.0),
}  # fmt: skip


def default_of(cfg: CfgNode, key: str) -> object:
    """The value of a key such as SOLVER.SEED, None if there is no such key."""
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, CfgNode) else None
    return cfg


def typed(key: str, value: object, default: object) -> object:
    """The value of a key in the type of its default, as far as it can be understood; else as it is.

    Texts that stand for something else (numbers, tuples) stay texts, which yacs evaluates.
    """
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if key in NUMBERS and text.lower() == NUMBERS[key][0]:
        return NUMBERS[key][1]
    if isinstance(default, bool):
        return TRUTH.get(text.lower(), value)
    if key in BLOCKS and (match := re.fullmatch(r"(none|all)|(first|last) +(\d+)", text.lower())):
        return (match[1],) if match[1] else (match[2], int(match[3]))
    if isinstance(default, float) and re.fullmatch(r"[+-]?\d+", text):
        return float(text)
    if default == () and not text.startswith(("(", "[")):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return value
