"""A table as it came out: mean and deviation over seeds beside the paper's numbers."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from errors import UserError
from tools.reproduction.outcomes import METRICS, Outcome
from tools.reproduction.plan import Job, PlannedRow, PlannedTable
from tools.reproduction.speed import Speed
from tools.reproduction.tables import MEAN, PROTOCOLS, Table, paper_numbers

__all__ = [
    "COLUMNS", "ORDERED", "BySeed", "Line", "Report", "ReportError", "cell", "markdown", "report", "table_row"
]  # fmt: skip

COLUMNS = tuple(f"{protocol} {metric}" for protocol in PROTOCOLS for metric in METRICS)
ORDERED = "F1@3"  # what the paper's orderings are of
# Whose numbers stand beside a benchmark that the paper does not have.
WITHOUT_NUMBERS = ("NUS_ZS", "COCO_ZS", "COCO_PARTIAL", "VOC2007_PARTIAL")
NO_SPEEDS: Mapping[str, Speed] = MappingProxyType({})

BySeed = Mapping[int | None, float]  # None: of no seed


class ReportError(UserError, ValueError):
    """Results that do not belong into one table."""


class Line(NamedTuple):
    """A row."""

    name: str
    values: Mapping[str, BySeed]  # by column; of what is measured, by repetition
    paper: Mapping[str, float]  # by column of the paper's
    note: str
    recipe: str
    outcomes: tuple[Outcome, ...]


class Report(NamedTuple):
    """A table on a benchmark."""

    planned: PlannedTable
    lines: tuple[Line, ...]
    columns: tuple[str, ...]
    paper_columns: tuple[str, ...]
    machine: str  # that speeds were measured on

    @property
    def spread(self) -> str:
        """What numbers with and without a deviation rest on, in words: the seeds of most rows, and those of others."""
        seeds = {line.name: tuple(sorted({o.content["seed"] for o in line.outcomes} - {None})) for line in self.lines}
        trained = {name: those for name, those in seeds.items() if those}
        counts = Counter(trained.values())
        usual = max(counts, key=lambda those: (counts[those], len(those)), default=())
        first = f"Seeds {', '.join(map(str, usual))}" if len(usual) > 1 else "One seed: no spread is known"
        rest = [f"{name}: {len(those)} seeds" for name, those in trained.items() if len(those) != len(usual)]
        return f"{'; '.join([first, *rest])}."

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been run for it."""
        return not any(line.outcomes for line in self.lines)

    def column(self, asked: str) -> str:
        """The column that an ordering of a protocol, or of a level, is judged by."""
        return asked if self.planned.table.levels else f"{asked} {ORDERED}"


def report(
    planned: PlannedTable, dataset: str, outcomes: Mapping[str, Outcome], *, weights: str = "ema",
    speeds: Mapping[str, Speed] = NO_SPEEDS,
) -> Report:  # fmt: skip
    """A table with what there is of it.

    Args:
        planned: the table.
        dataset: DATASETS.NAMES.
        outcomes: by identity.
        weights: "ema", where a method has averaged weights, or "raw".
        speeds: measurements by recipe.

    Raises:
        ReportError: if results are of other images, labels or CLIP than others in the table, or speeds of two machines.
    """
    paper, measured = paper_numbers(planned.table.name), planned.table.measured
    columns = planned.table.asked if planned.table.levels else COLUMNS
    benchmarks = (dataset,) if any(name == dataset for name, _ in paper) else WITHOUT_NUMBERS
    shown = {f"{name.partition('_')[0]} {column}": paper[name, column]
             for name in benchmarks for column in (*columns, *measured) if (name, column) in paper}  # fmt: skip
    speeds = speeds if measured else NO_SPEEDS
    lines = tuple(_line(row, outcomes, weights, speeds, planned.table, shown) for row in planned.rows)
    _require_comparable([outcome for line in lines for outcome in line.outcomes])
    machines = {speeds[line.recipe].machine for line in lines if line.recipe in speeds}
    if len(machines) > 1:
        raise ReportError(f"speeds of one table were measured on {'; '.join(sorted(machines))}: remove those of one")
    return Report(planned, lines, (*columns, *measured), tuple(shown), "".join(machines))


def markdown(made: Report) -> str:
    """The table; the best mean of every column is bold."""
    best = {column: _best(made.lines, column) for column in made.columns}
    head = ["", *made.columns, *(f"paper, {column}" for column in made.paper_columns)]
    lines = [table_row(head), f"| --- |{' ---: |' * (len(head) - 1)}"]
    for line in made.lines:
        cells = [cell(line.values[column], bold=line.name in best[column]) for column in made.columns]
        cells += [f"{line.paper[c]:.1f}" if c in line.paper else "-" for c in made.paper_columns]
        lines.append(table_row([line.name, *cells]))
    return "\n".join(lines)


def cell(values: BySeed, *, bold: bool = False) -> str:
    """Mean and sample deviation; "-" where there is nothing."""
    if not values:
        return "-"
    numbers = list(values.values())
    text = f"{statistics.mean(numbers):.1f}" + (f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else "")
    return f"**{text}**" if bold else text


def table_row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def _line(
    row: PlannedRow, outcomes: Mapping[str, Outcome], weights: str, speeds: Mapping[str, Speed], table: Table,
    paper: Mapping[str, Mapping[str, float]],
) -> Line:  # fmt: skip
    there = [(job, outcomes[job.identity]) for job in row.jobs if job.identity in outcomes]
    values = _at_levels(there, weights, table) if table.levels else _of_protocols(there, weights)
    recipe = row.jobs[0].recipe if row.jobs else ""
    repeated = speeds[recipe].values if recipe in speeds else {}
    values |= {column: dict(enumerate(repeated.get(column, ()))) for column in table.measured}
    beside = {column: numbers[row.name] for column, numbers in paper.items() if row.name in numbers}
    return Line(row.name, values, beside, row.note, recipe, tuple(outcome for _, outcome in there))


def _of_protocols(there: Sequence[tuple[Job, Outcome]], weights: str) -> dict[str, BySeed]:
    """Metrics of both protocols."""
    found = {job.seed: outcome.values(weights) for job, outcome in there}
    return {
        column: {seed: by_column[column] for seed, by_column in found.items() if column in by_column}
        for column in COLUMNS
    }


def _at_levels(there: Sequence[tuple[Job, Outcome]], weights: str, table: Table) -> dict[str, BySeed]:
    """The metric of each level, and for seeds that have all of the averaged ones their mean."""
    values: dict[str, BySeed] = {
        level.name: {job.seed: one.overall(weights, level.metric) for job, one in there if job.level == level.name}
        for level in table.levels
    }
    if table.averaged:
        averaged = [values[name] for name in table.averaged]
        seeds = set.intersection(*(set(by_seed) for by_seed in averaged))
        values[MEAN] = {
            seed: statistics.mean(by_seed[seed] for by_seed in averaged) for seed in sorted(seeds, key=str)
        }  # fmt: skip
    return values


def _best(lines: Sequence[Line], column: str) -> set[str]:
    """The rows with the best mean, as it is shown; the least is best of memory. None where there is one row."""
    there = {line.name: line.values[column].values() for line in lines if line.values[column]}
    means = {name: round(statistics.mean(values), 1) for name, values in there.items()}
    best = (min if column.endswith("GB") else max)(means.values(), default=0.0)
    return {name for name, mean in means.items() if mean == best} if len(means) > 1 else set()


def _require_comparable(outcomes: Sequence[Outcome]) -> None:
    """Raises ReportError unless all are of the same images and labels, as far as they share protocols, and CLIP."""
    known: dict[str, tuple[object, Outcome]] = {}
    for outcome in outcomes:
        facts = {f"images or labels for {name}": value for name, value in outcome.content["lists"].items()}
        facts |= {"CLIP": outcome.content["clip"]} if outcome.content["clip"] else {}
        for name, value in facts.items():
            first, holder = known.setdefault(name, (value, outcome))
            if first != value:
                raise ReportError(f"{outcome.path} has other {name} than {holder.path}: {value}, {first}")
