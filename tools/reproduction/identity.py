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

__all__ = ["INIT", "differing", "digest", "recipe"]

INIT = "SOLVER.INIT"  # a path; the run that it leads to counts instead
NO_MATTER = (
    *(key for key in IRRELEVANT if key != "TEST."), "TEST.WEIGHT", "TEST.IMS_PER_BATCH", "TEST.SAVE_SCORES", INIT
)  # fmt: skip
LENGTH = 12  # hexadecimal digits


@cache
def _defaults() -> dict[str, Any]:
    return {key: _plain(value) for key, value in flat(load_config()).items()}


def differing(values: CfgNode | Mapping[str, Any]) -> dict[str, Any]:
    """What makes results what they are: keys with other values than the defaults, in types that JSON has.

    Of paths that begin at the root of a machine, the last part; of a method that is not trained, nothing of SOLVER.

    Args:
        values: a configuration, or its values by their whole keys.
    """
    values = flat(values) if isinstance(values, CfgNode) else values
    untrained = values.get("MODEL.METHOD") in UNTRAINED
    found = {}
    for key, value in sorted(values.items()):
        plain = _plain(value)
        if key.startswith(NO_MATTER) or (untrained and key.startswith("SOLVER.")) or plain == _defaults().get(key):
            continue
        found[key] = plain
    return found


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


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str) and os.path.isabs(value):
        return Path(value).name
    return value
