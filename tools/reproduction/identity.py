"""When two runs are the same: what of their configurations differs from the defaults and changes results.

Only differences count, so that results stay valid when a key is added. Who changes a default, or what a method
computes, removes the result files that this concerns.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs import flat, load_config
from model import UNTRAINED
from tools.compare import IRRELEVANT, SEED
from tools.reproduction import tables

__all__ = ["INIT", "differing", "digest", "recipe", "without_place"]

INIT = "SOLVER.INIT"  # a path; the run that it leads to counts instead
WEIGHTS = "MODEL.CLIP_WEIGHTS"
PLACES = ("DATASETS.ROOT_DIR", "DATASETS.IMAGE_DIR")  # of a published benchmark the same images lie anywhere
NO_MATTER = (
    *(key for key in IRRELEVANT if key not in ("TEST.", WEIGHTS, *PLACES)),
    "TEST.WEIGHT", "TEST.IMS_PER_BATCH", "TEST.SAVE_SCORES", INIT,
)  # fmt: skip
LENGTH = 12  # hexadecimal digits


@cache
def _defaults() -> dict[str, Any]:
    return {key: _plain(value) for key, value in flat(load_config()).items()}


def differing(values: CfgNode | Mapping[str, Any]) -> dict[str, Any]:
    """What makes results what they are: keys with other values than the defaults, in types that JSON has.

    Weights of CLIP count by the name of their file. Of other paths that begin at the root of a machine stand the last
    part and a digest of the whole. Where images lie counts for own data only; of a method that is not trained, nothing
    of SOLVER does, nor what training is told of labels.

    Args:
        values: a configuration, or its values by their whole keys.
    """
    values = flat(values) if isinstance(values, CfgNode) else values
    skipped = NO_MATTER
    if values.get("MODEL.METHOD") in UNTRAINED:
        skipped += ("SOLVER.", "DATASETS.KNOWN")
    if tables.labels(str(values.get("DATASETS.NAMES"))) is not None:
        skipped += PLACES
    found = {key: _plain(value) for key, value in sorted(values.items()) if not key.startswith(skipped)}
    if isinstance(found.get(WEIGHTS), str):
        found[WEIGHTS] = Path(values[WEIGHTS]).name
    return {key: value for key, value in found.items() if value != _defaults().get(key)}


def digest(config: Mapping[str, Any], after: str = "") -> str:
    """The identity of a run.

    Args:
        config: what `differing` gives.
        after: identity of the run whose trained weights it began with, if there is one.
    """
    text = json.dumps([dict(config), after], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def recipe(config: Mapping[str, Any], after: str = "") -> str:
    """The same of all seeds of a run.

    Args:
        config: what `differing` gives.
        after: recipe of the run whose trained weights it began with, if there is one.
    """
    return digest({key: value for key, value in config.items() if key != SEED}, after)


def without_place(value: str) -> str:
    """A path without what tells of a machine, still another one for another place; other text as it is."""
    if not os.path.isabs(value):
        return value
    return f"{Path(value).name} ({hashlib.sha256(value.encode()).hexdigest()[:6]})"


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return without_place(value) if isinstance(value, str) else value
