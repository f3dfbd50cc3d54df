"""Reading configurations: defaults, then a YAML, then KEY VALUE pairs; unknown keys and wrong types are errors."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs.defaults import _C
from configs.schema import violation
from configs.words import AUTO_NUMBER as AUTO
from configs.words import default_of, typed
from errors import UserError
from files import open_regular

__all__ = ["AUTO", "ConfigError", "flat", "load_config", "restore_config", "with_overrides"]


class ConfigError(UserError, ValueError):
    """A key that does not exist, a value that is wrong in type or range, or a file that cannot be read."""


def load_config(path: str | Path | Sequence[str | Path] | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen configuration of a run.

    Args:
        path: YAML holding what differs from `configs/defaults.py`, or several, of which the last one counts where they
            differ, such as a benchmark's and a method's; None for the defaults.
        overrides: keys and values in turn, such as `["SOLVER.SEED", "1"]`.

    Raises:
        ConfigError: in one line, naming the key or the file.
    """
    cfg = _C.clone()
    for one in (path,) if isinstance(path, str | Path) else path or ():
        if Path(one).suffix not in (".yml", ".yaml"):  # yacs would run a .py file
            raise ConfigError(f"the configuration {one} has to be a .yml or .yaml file")
        with _one_line(one), open_regular(one, "r", encoding="utf-8") as file:
            _merge(cfg, CfgNode.load_cfg(file))
    return with_overrides(cfg, overrides)


def with_overrides(cfg: CfgNode, overrides: Sequence[str]) -> CfgNode:
    """The configuration with other values for some keys, frozen; keys and values come in turn.

    Raises:
        ConfigError: in one line, naming the key.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if len(overrides) % 2:
        raise ConfigError(f"overrides come as KEY VALUE pairs; {overrides[-1]!r} has no value")
    with _one_line("the overrides"):
        for key, value in zip(overrides[::2], overrides[1::2], strict=True):
            _set(cfg, key, value)
    _require_valid(cfg)
    cfg.freeze()
    return cfg


def restore_config(text: str) -> CfgNode:
    """The frozen configuration from the text that `dump` gave, as checkpoints hold it.

    Raises:
        ConfigError: if a key is unknown here or a value none that it may have.
    """
    cfg = _C.clone()
    with _one_line("the configuration in the checkpoint"):
        _merge(cfg, CfgNode.load_cfg(text))
        _require_valid(cfg)
    cfg.freeze()
    return cfg


def flat(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """The values by their whole keys, such as SOLVER.SEED."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else {f"{prefix}{key}": value}
    return values


def _merge(cfg: CfgNode, node: CfgNode, prefix: str = "") -> None:
    """Takes over the values of a node, whose keys begin with `prefix`."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, CfgNode) and isinstance(default_of(_C, key), CfgNode):
            _merge(cfg, value, f"{key}.")
        else:
            _set(cfg, key, value)


def _set(cfg: CfgNode, key: str, value: object) -> None:
    """Takes over a value in the type of the key's default."""
    _require_known(key)
    default = default_of(_C, key)
    if isinstance(default, str):  # yacs would evaluate a text, and take "{}" for a dictionary
        section, _, name = key.rpartition(".")
        node: Any = default_of(cfg, section) if section else cfg
        node[name] = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    else:
        cfg.merge_from_list([key, typed(key, value, default)])


def _require_known(key: str) -> None:
    """Answers an unknown key with the nearest one."""
    if default_of(_C, key) is not None:
        return
    known = [*flat(_C), *(name for name, value in _C.items() if isinstance(value, CfgNode))]
    near = difflib.get_close_matches(key.upper(), known, n=1, cutoff=0.4)
    raise ConfigError(f"there is no key {key}{f'; did you mean {near[0]}?' if near else ''}")


@contextmanager
def _one_line(source: str | Path) -> Iterator[None]:
    """Names what was read in place of a traceback."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {source}: {error.strerror}") from error
    except Exception as error:  # noqa: BLE001 - yacs and PyYAML raise a dozen types
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from error


def _require_valid(cfg: CfgNode) -> None:
    if wrong := violation(flat(cfg)):
        raise ConfigError(wrong)
