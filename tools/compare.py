"""Puts results beside each other: runs of one recipe as mean and spread over seeds, recipes against the first.

    python tools/compare.py RUN RUN ...

RUN is the folder of a run, whose newest test is taken, the folder of one test, or its results.json. Runs that differ in
nothing but SOLVER.SEED are one recipe. Only results on the same images and labels are compared.
"""

import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from engine import cli
from engine.run import newest_run
from errors import UserError
from files import read_text

COLUMNS = ("P@3", "R@3", "F1@3", "F1@5", "CF1@3", "mAP", "mAP_present")
IRRELEVANT = ("DEVICE", "OUTPUT_DIR", "WANDB", "DATALOADER.NUM_WORKERS", "TEST.", "SOLVER.LOG_PERIOD",
              "SOLVER.CHECKPOINT_PERIOD", "DATASETS.ROOT_DIR", "DATASETS.IMAGE_DIR", "DATASETS.PACK",
              "MODEL.CLIP_WEIGHTS")  # fmt: skip
SEED = "SOLVER.SEED"
LARGEST = 1e300
SHOWN = 10  # labels with the largest differences

Key = tuple[str, str]  # method, protocol


class CompareError(UserError, ValueError):
    """Something that holds no results, or results that cannot be compared."""


class Tested(NamedTuple):
    """The results of one test."""

    path: Path
    about: Mapping[str, Any]
    results: dict[Key, dict[str, float]]

    @property
    def recipe(self) -> dict[str, Any]:
        """The configuration without the seed and what does not change results."""
        return {k: v for k, v in self.about["config"].items() if k != SEED and not k.startswith(IRRELEVANT)}

    @property
    def labels(self) -> dict[tuple[str, str, str], float]:
        """AP by method, protocol and label, of labels that have one; empty where the file is not there."""
        path = self.path.with_name("per_class.csv")
        if not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["AP"]]
        return {(row["method"], row["protocol"], row["label"]): float(row["AP"]) for row in rows}


def read(place: Path) -> Tested:
    """The results that a path names.

    Raises:
        CompareError: if there are none.
    """
    path = place
    if place.is_dir() and not (path := place / "results.json").is_file():
        newest = newest_run(place / "test", "results.json") or newest_run(place, "results.json")
        if newest is None:
            raise CompareError(f"{place} holds no test: run test.py first, or name a results.json")
        path = newest / "results.json"
    try:
        content = json.loads(read_text(path))
        results = {(m, p): dict(s) for m, rows in content["results"].items() for p, s in rows.items()}
        about = {"config": dict(content["about"]["config"]), "lists": dict(content["about"]["lists"])}
        if not all(is_number(value) for row in results.values() for value in row.values()):
            raise TypeError("a metric is no number")
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise CompareError(f"{path} holds no results: {' '.join(str(error).split())}") from error
    return Tested(path, about, results)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST  # NaN is not


def require_comparable(tests: Sequence[Tested]) -> None:
    """Raises CompareError unless all tests are of the same images, labels, methods and protocols."""
    first = tests[0]
    for other in tests[1:]:
        for name in sorted(first.about["lists"].keys() | other.about["lists"].keys()):
            ours, theirs = first.about["lists"].get(name), other.about["lists"].get(name)
            if ours != theirs:
                raise CompareError(
                    f"{other.path} has other images or labels for {name} than {first.path}: {theirs}, {ours}"
                )
        if {protocol for _, protocol in first.results} != {protocol for _, protocol in other.results}:
            raise CompareError(f"{other.path} and {first.path} hold different protocols")


def recipes(tests: Sequence[Tested]) -> list[list[Tested]]:
    """The tests by recipe, in the order in which recipes are named.

    Raises:
        CompareError: if a recipe has the same seed twice, which would make the spread too small.
    """
    recipes: list[list[Tested]] = []
    for test in tests:
        group = next((group for group in recipes if group[0].recipe == test.recipe), None)
        if group is None:
            recipes.append([test])
            continue
        if twin := [t for t in group if t.about["config"].get(SEED) == test.about["config"].get(SEED)]:
            raise CompareError(f"{test.path} and {twin[0].path} are of the same recipe and seed: name one of them")
        group.append(test)
    return recipes


def columns_of(tests: Sequence[Tested]) -> list[str]:
    """The columns to show: the second convention of mAP only where it makes a difference."""
    rows = [row for test in tests for row in test.results.values()]
    differs = any(row.get("mAP") != row.get("mAP_present") for row in rows)
    return [c for c in COLUMNS if (c != "mAP_present" or differs) and all(c in row for row in rows)]


def table(group: Sequence[Tested], columns: Sequence[str], against: Sequence[Tested] = ()) -> str:
    """Markdown, a row for each method and protocol: mean ± sample deviation over seeds, (difference to `against`)."""
    lines = [f"| method | protocol | {' | '.join(columns)} |", f"| --- | --- |{' ---: |' * len(columns)}"]
    for key in group[0].results:
        cells = []
        for column in columns:
            values = [test.results[key][column] for test in group if key in test.results]
            base = [test.results[key][column] for test in against if key in test.results]
            cells.append(_cell(values) + (f" ({statistics.mean(values) - statistics.mean(base):+.1f})" if base else ""))
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.2f}" if spread else f"{statistics.mean(values):.1f}"


def changed_keys(group: Sequence[Tested], against: Sequence[Tested]) -> list[str]:
    """The keys in which two recipes differ, in one line each."""
    ours, theirs = group[0].recipe, against[0].recipe
    return [
        f"{key}: {theirs.get(key)} -> {ours.get(key)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def changed_labels(group: Sequence[Tested], against: Sequence[Tested]) -> list[str]:
    """The labels whose mean AP differs most between two recipes, the largest first, in one line each."""
    ours, theirs = _mean_precision(group), _mean_precision(against)
    gains = {key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()}
    largest = sorted(gains, key=lambda key: (-abs(gains[key]), key))[:SHOWN]
    return [f"{k[0]}, {k[1]}, {k[2]}: {theirs[k]:.1f} -> {ours[k]:.1f} ({gains[k]:+.1f})" for k in largest if gains[k]]


def _mean_precision(group: Sequence[Tested]) -> dict[tuple[str, str, str], float]:
    by_label: dict[tuple[str, str, str], list[float]] = {}
    for test in group:
        for key, value in test.labels.items():
            by_label.setdefault(key, []).append(value)
    return {key: statistics.mean(values) for key, values in by_label.items()}


def compare(places: Sequence[Path]) -> None:
    """Prints the tables of all recipes, and what differs from the first."""
    tests = [read(place) for place in places]
    require_comparable(tests)
    groups, columns = recipes(tests), columns_of(tests)
    for number, group in enumerate(groups, start=1):
        against = groups[0] if number > 1 else ()
        if len(groups) > 1:
            print(f"## {number}: {', '.join(str(test.path.parent) for test in group)}\n")
        print(table(group, columns, against))
        for title, lines in (
            ("configuration", changed_keys(group, against) if against else []),
            ("AP of labels", changed_labels(group, against) if against else []),
        ):
            if lines:
                print(f"\n{title}:\n" + "\n".join(f"* {line}" for line in lines))
        if number < len(groups):
            print()


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, a test of it, or a results.json")
    args = cli.read(parser, arguments)
    return cli.run(lambda: compare(args.runs))


if __name__ == "__main__":
    sys.exit(main())
