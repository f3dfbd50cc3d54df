"""Reading configurations: defaults, then a YAML, then KEY VALUE pairs; unknown keys and wrong types are errors."""

from collections.abc import Sequence
from pathlib import Path

from yacs.config import CfgNode

from configs.defaults import _C

__all__ = ["ConfigError", "load_config"]


class ConfigError(ValueError):
    """A key that does not exist, a value of the wrong type, or a file that cannot be read."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """The frozen configuration of a run.

    Args:
        path: YAML holding what differs from `configs/defaults.py`; None for the defaults.
        overrides: keys and values in turn, such as `["SOLVER.SEED", "1"]`.

    Raises:
        ConfigError: in one line, naming the key or the file.
    """
    cfg = _C.clone()
    try:
        if path is not None:
            cfg.merge_from_file(str(path))
        if len(overrides) % 2:
            raise ConfigError(f"overrides come as KEY VALUE pairs; {overrides[-1]!r} has no value")
        cfg.merge_from_list(list(overrides))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - yacs and PyYAML raise a dozen types
        where = path if path is not None else "the overrides"
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
    cfg.freeze()
    return cfg
