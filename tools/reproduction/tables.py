"""The paper's tables as data: which runs make up which rows, what the paper says of their order, and its numbers.

`tables.yml` and `paper.yml` hold them and say how they are written.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from errors import UserError

__all__ = [
    "MEAN", "METHODS", "NAMES", "PROTOCOLS", "Level", "Ordering", "Row", "Spec", "Table", "TableError", "has_levels",
    "is_aside", "labels", "paper_numbers", "runs", "table", "wanted",
]  # fmt: skip

FOLDER = Path(__file__).resolve().parent
METHODS = FOLDER.parent.parent / "configs" / "methods"
PROTOCOLS = ("ZSL", "GZSL")
ALIASES = {number: "comparison" for number in "1234"}  # the benchmark decides which of them it is
DEPTHS = "depths"
TWELVE = (3, 6, 9, 12)  # last blocks of a tower of twelve
MEAN = "mean"  # the column of the mean over levels


class TableError(UserError, ValueError):
    """A table that there is not."""


class Spec(NamedTuple):
    """A run, as far as the benchmark does not decide it."""

    name: str
    method: str = ""  # configs/methods/NAME.yml
    settings: tuple[tuple[str, str], ...] = ()  # keys and values
    after: str = ""  # the run whose trained weights it begins with
    needs_regions: bool = False  # one for each label
    at: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()  # further keys and values by level

    @property
    def overrides(self) -> list[str]:
        """Keys and values in turn."""
        return [word for pair in self.settings for word in pair]

    def files(self, benchmark: str) -> list[Path]:
        """The configuration of its method, if it has one, and its recipe for the benchmark DATASETS.NAMES, if any."""
        if not self.method:
            return []
        recipe = METHODS / benchmark / f"{self.method}.yml"
        return [METHODS / f"{self.method}.yml", *([recipe] if benchmark and recipe.is_file() else [])]


class Row(NamedTuple):
    """A row of a table."""

    name: str
    run: Spec


class Level(NamedTuple):
    """A column of a table whose rows are run at several: under other conditions, such as fewer known labels."""

    name: str
    settings: tuple[tuple[str, str], ...]  # keys and values
    metric: str  # of all labels (GZSL)

    def at(self, spec: Spec) -> Spec:
        """A run at this level; keys of the run count more, and most its own for this level."""
        slug = "".join(letter for letter in self.name if letter.isalnum())
        settings = (*self.settings, *spec.settings, *dict(spec.at).get(self.name, ()))
        return spec._replace(name=f"{spec.name}-{slug}", settings=settings)


class Ordering(NamedTuple):
    """What the paper says of F1@3, or of a level: each of a group is better than each of the next."""

    groups: tuple[tuple[str, ...], ...]  # rows, the best first
    protocols: tuple[str, ...]  # or levels

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The better and the worse row of every statement."""
        return [(one, other) for left, right in pairwise(self.groups) for one in left for other in right]


class Table(NamedTuple):
    """A table of the paper."""

    name: str
    title: str
    paper: str  # what it is there
    rows: tuple[Row, ...]
    orderings: tuple[Ordering, ...]
    measured: tuple[str, ...]
    is_sweep: bool
    levels: tuple[Level, ...] = ()  # none: rows are run once and have both protocols
    averaged: tuple[str, ...] = ()  # levels that the column of means is of

    @property
    def asked(self) -> tuple[str, ...]:
        """What orderings are of: protocols, or levels and their mean."""
        names = tuple(level.name for level in self.levels)
        return (*names, *([MEAN] if self.averaged else [])) if names else PROTOCOLS


@cache
def _data(file: str) -> Mapping[str, Any]:
    return yaml.safe_load((FOLDER / file).read_text(encoding="utf-8"))


NAMES: tuple[str, ...] = tuple(_data("tables.yml")["tables"])


def is_aside(name: str) -> bool:
    """Whether a table is none of the paper's, and so not among "all" and without figures."""
    return bool(_data("tables.yml")["tables"][name].get("aside"))


def has_levels(name: str) -> bool:
    """Whether the rows of a table are run at several levels."""
    return "levels" in _data("tables.yml")["tables"][name]


def wanted(words: Sequence[str]) -> list[str]:
    """The names of tables that are asked for, "all" or with commas between them, each once.

    Raises:
        TableError: if there is no such table, or none is named.
    """
    asked = [ALIASES.get(word, word) for one in words for word in one.split(",") if word]
    if not asked:
        raise TableError(f"--table names no table: {', '.join([*ALIASES, *NAMES])} or all")
    every = [name for name in NAMES if not is_aside(name)]
    names = [name for word in asked for name in (every if word == "all" else (word,))]
    if unknown := [name for name in names if name not in NAMES]:
        raise TableError(f"there is no table {unknown[0]!r}: {', '.join([*ALIASES, *NAMES])} or all")
    return list(dict.fromkeys(names))


@cache
def runs() -> dict[str, Spec]:
    """All runs that are no value of a sweep, by name."""
    return {name: _spec(name, entry) for name, entry in _data("tables.yml")["runs"].items()}


def table(name: str, depths: Callable[[], int]) -> Table:
    """A table with its rows.

    Args:
        name: one of `NAMES`.
        depths: gives the number of blocks that both towers have, which some sweeps ask for.
    """
    entry = _data("tables.yml")["tables"][name]
    rows = tuple(Row(row, runs()[run]) for row, run in entry["rows"].items()) if "rows" in entry else ()
    if sweep := entry.get("sweep"):
        rows = tuple(_swept(sweep, value) for value in _values(sweep["values"], depths))
    made = Table(
        name, entry["title"], entry["paper"], rows, (), tuple(entry.get("measured", ())), bool(sweep),
        tuple(_level(level) for level in entry.get("levels", ())), tuple(entry.get("averaged", ())),
    )  # fmt: skip
    return made._replace(orderings=tuple(
        Ordering(
            tuple((group,) if isinstance(group, str) else tuple(group) for group in one["order"]),
            tuple(one.get("protocols", made.asked)),
        )
        for one in entry["orderings"]
    ))  # fmt: skip


def labels(benchmark: str) -> tuple[int, int] | None:
    """The numbers of seen and unseen labels of a benchmark, DATASETS.NAMES; None where they are not known."""
    known = _data("paper.yml")["labels"].get(benchmark)
    return None if known is None else (known[0], known[1])


@cache
def paper_numbers(name: str) -> dict[tuple[str, str], dict[str, float]]:
    """The paper's numbers of a table: benchmark and column, such as "ZSL F1@3" -> row -> number."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for entry in _data("paper.yml")["tables"]:
        if entry["table"] != name:
            continue
        for place, column in enumerate(entry["columns"]):
            benchmark, _, what = column.partition(" ")
            numbers = {row: values[place] for row, values in entry["rows"].items() if values[place] is not None}
            found[benchmark, what] = numbers
    return found


def _spec(name: str, entry: Mapping[str, Any]) -> Spec:
    at = tuple((level, _settings(more)) for level, more in entry.get("at", {}).items())
    return Spec(
        name, entry.get("method", ""), _settings(entry.get("set", {})), entry.get("after", ""),
        entry.get("needs") == "regions", at,
    )  # fmt: skip


def _settings(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in entry.items())


def _level(name: str) -> Level:
    entry = _data("tables.yml")["levels"][name]
    return Level(name, _settings(entry["set"]), entry["metric"])


def _swept(sweep: Mapping[str, Any], value: int) -> Row:
    settings = {key: text.format(value) for key, text in sweep["set"].items()}
    return Row(sweep["row"].format(value), _spec(sweep["run"].format(value), {"set": settings}))


def _values(values: Sequence[int] | str, depths: Callable[[], int]) -> Sequence[int]:
    if isinstance(values, str):
        assert values == DEPTHS, values
        return TWELVE if (blocks := depths()) == max(TWELVE) else range(1, blocks + 1)
    return values
