"""Reading configurations: defaults, then a YAML, then KEY VALUE pairs; unknown keys and wrong types are errors."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from yacs.config import CfgNode

from configs.defaults import _C

__all__ = ["ConfigError", "load_config"]


CHOICES = {"LR_PERIOD": ("epoch", "step"), "SELECT": ("last", "best"), "NONFINITE": ("skip", "stop")}
AT_LEAST = {"MAX_EPOCHS": 1, "EVAL_PERIOD": 1, "LOG_PERIOD": 1, "CHECKPOINT_PERIOD": 0, "WARMUP_LR": 0, "MIN_LR": 0}


class ConfigError(ValueError):
    """A key that does not exist, a value that is wrong in type or range, or a file that cannot be read."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen configuration of a run.

    Args:
        path: YAML holding what differs from `configs/defaults.py`; None for the defaults.
        overrides: keys and values in turn, such as `["SOLVER.SEED", "1"]`.

    Raises:
        ConfigError: in one line, naming the key or the file.
    """
    cfg = _C.clone()
    if path is not None:
        if Path(path).suffix not in (".yml", ".yaml"):  # yacs would run a .py file
            raise ConfigError(f"the configuration {path} has to be a .yml or .yaml file")
        with _one_line(path), open(path, encoding="utf-8") as file:
            cfg.merge_from_other_cfg(_coerced(CfgNode.load_cfg(file), cfg))
    if len(overrides) % 2:
        raise ConfigError(f"overrides come as KEY VALUE pairs; {overrides[-1]!r} has no value")
    with _one_line("the overrides"):
        pairs = zip(overrides[::2], overrides[1::2], strict=True)
        cfg.merge_from_list([part for key, value in pairs for part in (key, _text_for(value, _default(cfg, key)))])
    _check_loop(cfg)
    cfg.freeze()
    return cfg


def _coerced(node: CfgNode, defaults: CfgNode) -> CfgNode:
    """The node with whole numbers as floats where the default is one: yacs takes neither for the other."""
    coerced = CfgNode()
    for key, value in node.items():
        default = defaults.get(key)
        if isinstance(value, CfgNode) and isinstance(default, CfgNode):
            coerced[key] = _coerced(value, default)
        else:
            coerced[key] = float(value) if isinstance(default, float) and type(value) is int else value
    return coerced


def _text_for(text: object, default: object) -> object:
    """The text of a value such that yacs reads it as the type of its default: `0` as 0.0, `cat,dog` as two names."""
    if not isinstance(text, str):
        return text
    if isinstance(default, float) and re.fullmatch(r"[+-]?\d+", text):
        return f"{text}.0"
    if default == () and not text.startswith(("(", "[")):
        return repr(tuple(part.strip() for part in text.split(",") if part.strip()))
    return text


def _default(cfg: CfgNode, key: str) -> object:
    """The default of a key, None if there is no such key."""
    for part in key.split("."):
        cfg = cfg.get(part) if isinstance(cfg, CfgNode) else None
    return cfg


@contextmanager
def _one_line(source: str | Path) -> Iterator[None]:
    """Names what was read in place of a traceback."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {source}: {error.strerror}") from error
    except Exception as error:  # noqa: BLE001 - yacs and PyYAML raise a dozen types
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error


def _check_loop(cfg: CfgNode) -> None:
    """The values that the training loop would ignore or stumble over; the rest is checked where it is used."""
    for key, choices in CHOICES.items():
        if cfg.SOLVER[key] not in choices:
            raise ConfigError(f"SOLVER.{key} is {cfg.SOLVER[key]!r}; it has to be {' or '.join(choices)}")
    for key, least in AT_LEAST.items():
        if cfg.SOLVER[key] < least:
            raise ConfigError(f"SOLVER.{key} is {cfg.SOLVER[key]}; it has to be {least} or more")
