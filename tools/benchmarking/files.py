"""Files of measurements: JSON with the machine, the versions and the command."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.atomic import atomic_write
from errors import UserError

__all__ = ["FORMAT", "BenchmarkError", "Row", "Run", "collect", "of_rows", "read", "require_common", "write"]

FORMAT = "benchmark"
BUSY = 0.5  # processes that want to run


class BenchmarkError(UserError, ValueError):
    """A file that holds no measurements, or of something else."""


class Row(NamedTuple):
    """A measurement of a file."""

    what: str  # which benchmark it belongs to
    case: str
    quantity: str
    unit: str
    median: float
    least: float
    most: float
    at: float | None  # where on a curve

    @property
    def name(self) -> str:
        """What is the same in another file."""
        return f"{self.place}: {self.quantity}"

    @property
    def place(self) -> str:
        """The case, with its place on a curve."""
        return self.case if self.at is None else f"{self.case}, {self.at:,.0f}"


class Run(NamedTuple):
    """A file."""

    about: Mapping[str, Any]  # environment, command, date, device, load, seconds
    rows: tuple[Row, ...]

    @property
    def is_busy(self) -> bool:
        """Whether other programs ran when the measurement began: the clock says little then."""
        return (self.about.get("load") or 0.0) > BUSY

    @property
    def what(self) -> tuple[str, ...]:
        """The benchmarks that were run, in their order."""
        return tuple(dict.fromkeys(row.what for row in self.rows))

    def of(self, what: str) -> list[Row]:
        """The rows of a benchmark."""
        return [row for row in self.rows if row.what == what]


def of_rows(about: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Run:
    """What `write` would write and `read` give."""
    return Run(about, tuple(_row(row) for row in rows))


def _row(row: Mapping[str, Any]) -> Row:
    """Raises KeyError, TypeError or ValueError where there is something else."""
    place = float(row["at"]) if "at" in row else None
    what, case, quantity, unit = (str(row[key]) for key in ("what", "case", "quantity", "unit"))
    return Row(what, case, quantity, unit, float(row["median"]), float(row["min"]), float(row["max"]), place)


def read(path: str | Path) -> Run:
    """The measurements of a file.

    Raises:
        BenchmarkError: if it holds none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        return of_rows(dict(content["about"]), content["measurements"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{path} holds no measurements: make them with python tools/benchmark.py --json {path}"
        ) from error


def collect(folder: Path) -> dict[str, Run]:
    """All files of measurements in a folder, by their names without the ending.

    Raises:
        BenchmarkError: if a file there is something else.
    """
    return {path.stem: read(path) for path in sorted(folder.glob("*.json"))}


def write(path: str | Path, about: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes such a file; a row is what `Measurement.row` gives, with `what`.

    Raises:
        WriteError: if the system refuses.
    """
    lines = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in rows)  # one line each: files are compared
    head = json.dumps({"format": FORMAT, "about": about}, indent=1, ensure_ascii=False)
    with atomic_write(path, "w") as file:
        file.write(f'{head[:-2]},\n "measurements": [\n  {lines}\n ]\n}}\n')


def require_common(old: Run, what: Sequence[str], path: str) -> None:
    """Refuses a file to compare with that measures something else.

    Raises:
        BenchmarkError: if it has none of the benchmarks `what`.
    """
    if not set(what) & set(old.what):
        raise BenchmarkError(f"{path} measures {', '.join(old.what) or 'nothing'}, not {', '.join(what)}")
