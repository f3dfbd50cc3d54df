"""The log of a run: one JSON line per event in log.jsonl, and the same to Weights & Biases where that is wanted."""

import json
import math
import netrc
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import numpy as np
from torch import Tensor

from errors import UserError

__all__ = ["LogError", "RunLog"]


class LogError(UserError, OSError):
    """A log that cannot be written, or Weights & Biases asked for where it cannot be had."""


class RunLog:
    """Events of a run, appended to `folder`/log.jsonl and on disk as soon as `write` returns.

    A resumed run goes on in the same file; a line that was cut off when it was killed is removed first.
    With a project, Weights & Biases receives the same numbers under stable names ("train/loss"); it works
    offline (`wandb sync` uploads later) where nobody is logged in, and heeds WANDB_MODE.

    Args:
        folder: of the run; exists.
        wandb_project: None leaves Weights & Biases alone and unimported.
        wandb_config: the run's configuration, shown there.
        name: the run's name there; None for that of the folder. A resumed run is a second one of the same group.

    Raises:
        LogError: if log.jsonl cannot be written, or wandb is not installed or refuses to start.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        wandb_project: str | None = None,
        wandb_config: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        self._start = time.monotonic()
        self._path = Path(folder) / "log.jsonl"
        try:
            _drop_unfinished_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise LogError(f"cannot write {self._path}: {error.strerror}") from error
        try:
            self._wandb = (
                None if wandb_project is None else _start_wandb(Path(folder), wandb_project, wandb_config, name)
            )
        except LogError:
            self._file.close()
            raise

    def write(self, kind: str, **values: Any) -> None:
        """Logs one event.

        Args:
            kind: such as train or test.
            values: numbers, strings, booleans, None, lists and dicts of them, tensors and arrays of any shape (0-d
                ones are numbers). NaN and infinities become null, since JSON has none.

        Raises:
            LogError: if the line cannot be written.
            ValueError: if a value is named time, which is the line's own: seconds since this log was opened.
        """
        if "time" in values:
            raise ValueError("'time' is the seconds since the start in every line of the log: name the value otherwise")
        plain = {key: _plain(value) for key, value in values.items()}
        line = {"time": round(time.monotonic() - self._start, 3), "kind": kind, **plain}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise LogError(f"cannot write {self._path}: {error.strerror}") from error
        if self._wandb is not None:
            self._wandb.log({f"{kind}/{key}": value for key, value in plain.items()})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Shows a table in Weights & Biases; without it there is nowhere to show one, and nothing happens."""
        if self._wandb is not None:
            import wandb

            self._wandb.log({name: wandb.Table(columns=list(columns), data=[_plain(row) for row in rows])})

    def close(self, *, failed: bool = False) -> None:
        """Ends the log; `failed` marks the run as failed in Weights & Biases.

        Raises:
            LogError: if a line that could not be written still cannot.
        """
        try:
            self._file.close()
        except OSError as error:
            raise LogError(f"cannot write {self._path}: {error.strerror}") from error
        finally:
            if self._wandb is not None:
                self._wandb.finish(exit_code=int(failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


def _plain(value: Any) -> Any:
    """The same in types that JSON has."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _drop_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _start_wandb(folder: Path, project: str, config: Mapping[str, Any] | None, name: str | None) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise LogError("WANDB is on, but wandb is not installed: pip install wandb, or turn it off") from error
    try:
        return wandb.init(
            project=project,
            config=None if config is None else dict(config),
            name=name or folder.resolve().name,
            group=folder.resolve().name,
            dir=str(folder),
            mode=_wandb_mode(),
        )
    except Exception as error:  # of several unrelated types, for keys, settings and connections
        reason = " ".join(str(error).split())
        raise LogError(f"Weights & Biases does not start ({reason}): set WANDB_MODE=offline or turn it off") from error


def _wandb_mode() -> Literal["offline"] | None:
    """None leaves the choice to wandb and its WANDB_MODE; without a login, that would ask for one."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return None
    logged_in = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
    return None if logged_in or _in_netrc() else "offline"


def _in_netrc() -> bool:
    """Whether the file that wandb would read has a key for its server."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    named = os.environ.get("NETRC")
    for path in (named,) if named else ("~/.netrc", "~/_netrc"):
        try:
            entry = netrc.netrc(os.path.expanduser(path)).authenticators(host)
        except (OSError, netrc.NetrcParseError):
            continue
        return entry is not None and bool(entry[2])
    return False
