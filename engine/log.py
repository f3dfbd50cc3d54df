"""The log of a run: one JSON line per event in log.jsonl, and the same to Weights & Biases where that is wanted."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import Tensor

from engine.atomic import atomic_write
from engine.dashboard import Dashboard, LogError
from engine.results import Result

__all__ = ["LogError", "NoLog", "RunLog"]


class RunLog:
    """Events of a run, appended to `folder`/log.jsonl and on disk as soon as `write` returns.

    A resumed run goes on in the same file and in time: what was logged behind its checkpoint, which happens again, is
    removed first, and so is a line that was cut off.
    With a project, Weights & Biases receives the same numbers (`engine/dashboard.py`).

    Args:
        folder: of the run; exists.
        resumed: epoch and step at which the run goes on, where it does.
        wandb_project: None leaves Weights & Biases alone and unimported.
        wandb_config: the run's configuration, shown there.
        wandb_group: what runs are grouped by there, such as the benchmark.
        wandb_job: what kind of run it is there, such as the method.
        wandb_tags: words to find it by there.

    Raises:
        LogError: if log.jsonl cannot be written, or wandb is not installed or refuses to start.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        resumed: tuple[int, int] | None = None,
        wandb_project: str | None = None,
        wandb_config: Mapping[str, Any] | None = None,
        wandb_group: str | None = None,
        wandb_job: str | None = None,
        wandb_tags: Sequence[str] = (),
    ) -> None:
        self._path = Path(folder) / "log.jsonl"
        try:
            past = _tidied(self._path, resumed)
            self._start = time.monotonic() - past
            self._file = self._path.open("a", encoding="utf-8")
        except OSError as error:
            raise LogError(f"cannot write {self._path}: {error.strerror}") from error
        self._dashboard = None
        try:
            if wandb_project is not None:
                self._dashboard = Dashboard(
                    Path(folder), project=wandb_project, config=wandb_config or {}, group=wandb_group, job=wandb_job,
                    tags=wandb_tags,
                )  # fmt: skip
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
            ValueError: if a value is named time, which is the line's own: seconds that the run was on its way.
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
        if self._dashboard is not None:
            self._dashboard.log(kind, plain)

    def results(self, kind: str, results: Sequence[Result], **values: Any) -> None:
        """Logs the summaries of results, an event for each, and shows the AP of every label in Weights & Biases.

        Args:
            kind: val or test.
            results: of one evaluation.
            values: such as the step that they belong to.
        """
        for result in results:
            name = f"{result.method}/{result.protocol}"
            self.write(kind, **values, **{f"{name}/{key}": value for key, value in result.metrics.summary.items()})
            if self._dashboard is not None:
                rows = zip(result.names, _plain(result.metrics.per_class["AP"]), strict=True)
                self._dashboard.table(f"{kind}/{name}/AP of labels", ["label", "AP"], [list(row) for row in rows])

    @property
    def shows_pictures(self) -> bool:
        """Whether pictures are shown anywhere, so that they need to be made."""
        return self._dashboard is not None

    def picture(self, name: str, image: Any) -> None:
        """Shows a PIL image, if there is one, in Weights & Biases; the log on disk holds numbers only."""
        if self._dashboard is not None and image is not None:
            self._dashboard.picture(name, image)

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
            if self._dashboard is not None:
                self._dashboard.finish(failed=failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)


class NoLog:
    """What all processes of a run but the first log: nothing."""

    shows_pictures = False

    def write(self, kind: str, **values: Any) -> None:
        """As `RunLog.write`."""

    def results(self, kind: str, results: Sequence[Result], **values: Any) -> None:
        """As `RunLog.results`."""

    def picture(self, name: str, image: Any) -> None:
        """As `RunLog.picture`."""


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


def _tidied(path: Path, resumed: tuple[int, int] | None) -> float:
    """Removes what is cut off or happens again; the time of the last line, 0 without one."""
    if not path.exists():
        return 0.0
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    lines = [(line, _event(line)) for line in whole]
    kept = [(line, event) for line, event in lines if resumed is None or not _is_later(event, *resumed)]
    tidy = b"".join(line for line, _ in kept)
    if tidy != content:
        with atomic_write(path) as file:
            file.write(tidy)
    times = [event["time"] for _, event in kept if isinstance(event.get("time"), int | float)]
    return float(max(times, default=0.0))


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _is_later(event: Mapping[str, Any], epoch: int, step: int) -> bool:
    """Whether a training that goes on at this epoch and step comes to an event once more."""
    its_epoch, its_step = event.get("epoch"), event.get("step")
    if not isinstance(its_epoch, int) or not isinstance(its_step, int):
        return False
    return its_step > step if event.get("kind") == "train" else its_epoch >= epoch
