"""Weights & Biases: the numbers of a run in the sections train, val, test, solver and system of one workspace.

Names hold no blanks or brackets ("val/RAM-EMA/GZSL/F1@3"), all share the training step as their axis, the summary of
F1@3 and mAP is the best value. Without a login it works offline; `wandb sync` uploads later. WANDB_MODE is heeded.
"""

import netrc
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from errors import UserError

__all__ = ["Dashboard", "LogError", "metric_name"]

SECTIONS = ("train", "val", "test", "solver", "system")
SOLVER = ("lr_", "temperature_", "solver_")  # beginnings of what is told of the optimisation
SYSTEM = ("images_per_second", "peak_memory_gb")
BEST = ("F1@3", "mAP")  # ends of the metrics that are better when higher
IDENTITY = "wandb_id"  # file of the run folder: a resumed run is the same one there


class LogError(UserError, OSError):
    """A log that cannot be written, or Weights & Biases asked for where it cannot be had."""


class Dashboard:
    """A run in Weights & Biases; the same one again where `folder` has been one before.

    Args:
        folder: of the run; its name is the run's.
        project: there.
        config: shown there.
        group: such as the benchmark.
        job: such as the method.
        tags: words to find it by.

    Raises:
        LogError: if wandb is not installed or refuses to start.
    """

    def __init__(
        self, folder: Path, *, project: str, config: Mapping[str, Any], group: str | None, job: str | None,
        tags: Sequence[str],
    ) -> None:  # fmt: skip
        try:
            import wandb
        except ImportError as error:
            raise LogError("WANDB is on, but wandb is not installed: pip install wandb, or turn it off") from error
        try:
            self._run = wandb.init(
                project=project, config=dict(config), id=_identity(folder), resume="allow", name=folder.resolve().name,
                group=group, job_type=job, tags=list(tags), dir=str(folder), mode=_mode(),
            )  # fmt: skip
            self._run.define_metric("step")
            for section in SECTIONS:
                self._run.define_metric(f"{section}/*", step_metric="step")
        except Exception as error:  # of several unrelated types, for keys, settings and connections
            reason = " ".join(str(error).split())
            way_out = "set WANDB_MODE=offline or turn it off"
            raise LogError(f"Weights & Biases does not start ({reason}): {way_out}") from error
        self._defined: set[str] = set()

    def log(self, kind: str, values: Mapping[str, Any]) -> None:
        """Logs an event of a kind (train, val, test) with plain values."""
        named = {key if key == "step" else metric_name(kind, key): value for key, value in values.items()}
        for name in named.keys() - self._defined:
            if name.endswith(BEST):
                self._run.define_metric(name, step_metric="step", summary="max")
        self._defined |= named.keys()
        self._run.log(named)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Shows a table."""
        import wandb

        self._run.log({_plain_name(name): wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def picture(self, name: str, image: Any) -> None:
        """Shows a PIL image."""
        import wandb

        self._run.log({_plain_name(name): wandb.Image(image)})

    def finish(self, *, failed: bool) -> None:
        """Ends the run."""
        self._run.finish(exit_code=int(failed))


def metric_name(kind: str, key: str) -> str:
    """Section and name of a value: what a training step says of its optimisation and speed has sections of its own."""
    if kind == "train" and key.startswith(SOLVER):
        return f"solver/{_plain_name(key.removeprefix('solver_'))}"
    if kind == "train" and key in SYSTEM:
        return f"system/{_plain_name(key)}"
    return f"{kind}/{_plain_name(key)}"


def _plain_name(name: str) -> str:
    return re.sub(r"\s+", "-", re.sub(r"[()\[\]]", "", name).strip())


def _identity(folder: Path) -> str:
    path = folder / IDENTITY
    if not path.is_file():
        path.write_text(secrets.token_hex(6) + "\n")
    return path.read_text().strip()


def _mode() -> Literal["offline"] | None:
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
