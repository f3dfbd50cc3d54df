"""Whether the paper's orderings hold, and what else there is to say of a table.

A statement "A over B" is judged by the differences A - B of the seeds that both have, which share images, batches and
what is drawn at random. With their mean d and its standard error e (sample deviation over the root of their number), it
    holds                    if d > 2 e: beyond the spread,
    holds within the spread  if 0 < d <= 2 e, or if there is one seed only,
    does not hold            if d <= 0, "beyond the spread" if d < -2 e.
What is not trained has no seed and is compared with every seed of the other. Two or three seeds make no test of
significance out of this: it is a rule, the same for all tables.
"""

import math
import statistics
from typing import NamedTuple

from tools.reproduction.report import BySeed, Line, Report, table_row
from tools.reproduction.tables import Ordering

__all__ = ["Verdict", "findings", "judge", "statements"]

HOLDS, WITHIN, FAILS, REVERSED = (
    "holds", "holds within the spread", "does not hold", "does not hold, beyond the spread"
)  # fmt: skip
RANKS = (HOLDS, WITHIN, FAILS, REVERSED)


class Verdict(NamedTuple):
    """Whether one row is better than another."""

    words: str
    mean: float
    error: float | None  # None: one seed
    seeds: int


def statements(made: Report) -> str:
    """What the paper says, pair by pair and protocol by protocol or level by level, as a table; "" where nothing."""
    orderings = made.planned.table.orderings
    rows = {pair: table_row([" over ".join(_named(made, name) for name in pair), *_verdicts(made, pair)])
            for ordering in orderings for pair in ordering.pairs}  # fmt: skip
    asked = made.planned.table.asked
    return (
        "\n".join([table_row(["the paper", *asked]), f"|{' --- |' * (1 + len(asked))}", *rows.values()]) if rows else ""
    )


def findings(made: Report) -> list[str]:
    """What there is to say of a table, in one line each: orderings, what is missing, what is left out."""
    if made.is_empty:
        return ["Nothing of it has been run yet.", *_notes(made)]
    said = [_ordering(made, ordering) for ordering in made.planned.table.orderings]
    missing = {line.name: len(row.jobs) - len(line.outcomes)
               for line, row in zip(made.lines, made.planned.rows, strict=True)}  # fmt: skip
    for line in made.lines:
        if missing[line.name] and line.outcomes:
            what = "runs" if made.planned.table.levels else "seeds"
            said.append(f"{line.name}: {missing[line.name]} of the {what} are missing.")
    if absent := [line.name for line in made.lines if missing[line.name] and not line.outcomes]:
        said.append(f"Not run yet: {', '.join(absent)}.")
    if made.machine:
        said.append(f"Speed and memory: batches of random images on {made.machine}, mean and deviation of repetitions.")
    return said + _notes(made)


def judge(better: BySeed, worse: BySeed) -> Verdict | None:
    """Whether "better over worse" holds, as the module says; None where they share no seed.

    Args:
        better: values by seed; the seed None stands for every one.
        worse: likewise.
    """
    if None in better and None in worse:
        differences = [better[None] - worse[None]]
    elif None in worse:
        differences = [value - worse[None] for value in better.values()]
    elif None in better:
        differences = [better[None] - value for value in worse.values()]
    else:
        differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys(), key=str)]
    if not differences:
        return None
    mean, count = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else None
    beyond = error is not None and abs(mean) > 2 * error
    if mean > 0:
        return Verdict(HOLDS if beyond else WITHIN, mean, error, count)
    return Verdict(REVERSED if beyond and mean < 0 else FAILS, mean, error, count)


def _ordering(made: Report, ordering: Ordering) -> str:
    """What holds for all pairs of an ordering, by protocol."""
    text = " > ".join(", ".join(_named(made, name) for name in group) for group in ordering.groups)
    said = []
    for protocol in ordering.protocols:
        verdicts = [_compared(made, pair, protocol) for pair in ordering.pairs]
        known = [verdict.words for verdict in verdicts if verdict]
        worst = f"**{max(known, key=RANKS.index)}**" if known else "cannot be said"
        open_ones = f" ({len(verdicts) - len(known)} of {len(verdicts)} pairs are open)" if None in verdicts else ""
        said.append(f"{protocol} {worst}{open_ones if known else ''}")
    return f"{text}: {', '.join(said)}."


def _verdicts(made: Report, pair: tuple[str, str]) -> list[str]:
    """A cell for each protocol, "" where the paper says nothing."""
    cells = []
    for protocol in made.planned.table.asked:
        said = any(pair in one.pairs and protocol in one.protocols for one in made.planned.table.orderings)
        verdict = _compared(made, pair, protocol) if said else None
        if verdict is None:
            cells.append("-" if said else "")
            continue
        error = f" ± {verdict.error:.2f}" if verdict.error is not None else ""
        cells.append(f"{verdict.words}: {verdict.mean:+.2f}{error}")
    return cells


def _compared(made: Report, pair: tuple[str, str], protocol: str) -> Verdict | None:
    better, worse = (_line(made, name) for name in pair)
    column = made.column(protocol)
    if better is None or worse is None or better is worse:
        return None
    return judge(better.values[column], worse.values[column])


def _line(made: Report, name: str) -> Line | None:
    """The row of a name in `tables.yml`."""
    if name == "@last":
        return made.lines[-1]
    if name == "@ram":
        return next((line for line in made.lines if line.recipe == made.planned.ram), None)
    return next((line for line in made.lines if line.name == name), None)


def _named(made: Report, name: str) -> str:
    line = _line(made, name)
    return line.name if line else name


def _notes(made: Report) -> list[str]:
    return [f"{line.name}: {line.note}." for line in made.lines if line.note]
