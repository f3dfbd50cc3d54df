"""Measurements as tables: what belongs together stands in a line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from engine.results import aligned
from tools.benchmarking.comparing import FASTER, MEMORY, PROCESSOR, SAME, SHARE, TIME
from tools.benchmarking.files import Row, Run
from tools.benchmarking.growth import exponent
from tools.benchmarking.table import short
from tools.benchmarking.targets import target_of

__all__ = ["Section", "curves", "duration", "markdown", "plain", "section", "size"]

Rows = Mapping[str, Row]  # of a case, by quantity


class Section(NamedTuple):
    """A table, whose first column is text."""

    head: Sequence[str]
    lines: list[Sequence[str]]


BESIDE = (
    "", "time", "memory", "of the matrix rate", "beside", "its time", "its memory", "times as fast",
    "by processor time", "at least",
)  # fmt: skip


def section(what: str, run: Run) -> Section:
    """The table of a benchmark."""
    rows = run.of(what)
    if what == "growth":
        return _grown(run)
    if what == "parts":
        return _split(rows)
    if any(row.quantity.startswith(FASTER) for row in rows):
        lines = [line for case in _cases(rows).values() for line in _beside(case, busy=run.is_busy)]
        return Section(BESIDE, lines)
    lines = [[r.case, r.quantity, f"{short(r.median)} {r.unit}", short(r.least), short(r.most)] for r in rows]
    return Section(("", "", "median", "min", "max"), lines)


def markdown(made: Section) -> str:
    """A table for a page."""
    rule = ["---", *["---:"] * (len(made.head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (made.head, rule, *made.lines))


def plain(made: Section) -> str:
    """A table for a terminal."""
    return aligned([made.head, *made.lines], left=1)


def duration(seconds: float) -> str:
    """Of three digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{short(seconds * factor)} {unit}"
    return f"{short(seconds * 1e6)} µs"


def size(megabytes: float) -> str:
    """Of three digits."""
    return f"{short(megabytes)} MB" if megabytes < 1000 else f"{short(megabytes / 1000)} GB"


def curves(run: Run, quantity: str) -> dict[str, dict[float, float]]:
    """Medians by place, of each case that has a quantity at several."""
    found: dict[str, dict[float, float]] = {}
    for row in run.of("growth"):
        if row.quantity == quantity and row.at is not None:
            found.setdefault(row.case, {})[row.at] = row.median
    return found


def _beside(case: Rows, *, busy: bool) -> Iterator[Sequence[str]]:
    """A line for each rival; the first one also says what is the case's own."""
    time, share = case[TIME], case.get(f"{SHARE}, {SAME}" if busy else SHARE)
    counts = [f"{row.quantity} {short(row.median)}" for row in case.values() if not row.unit]
    spread = f"{duration(time.median)} ({duration(time.least)} to {duration(time.most)})"
    own = (
        ", ".join([time.case, *counts]), spread, _memory(case, MEMORY), f"{share.median:.0f} %" if share else "-",
    )  # fmt: skip
    for quantity, row in case.items():
        if not quantity.startswith(FASTER) or quantity.endswith(SAME):
            continue
        rival = quantity.removeprefix(f"{FASTER} ")
        its = next(row for name, row in case.items() if name.startswith(rival))
        same, target = case.get(f"{quantity}, {SAME}"), target_of(row)
        yield (
            *own, its.quantity, duration(its.median), _memory(case, f"{MEMORY} of {rival}"), _times(row),
            _times(same) if same else "-", "-" if target is None else f"{target:g}",
        )  # fmt: skip
        own = ("", "", "", "")


def _grown(run: Run) -> Section:
    """A line for each curve."""
    head = ("", "from", "to", "time there", "exponent", "memory there", "exponent")
    memory = curves(run, MEMORY)
    lines: list[Sequence[str]] = []
    for case, times in curves(run, PROCESSOR if run.is_busy else TIME).items():
        held, last = memory.get(case, {}), max(times)
        lines.append((
            case, f"{min(times):,.0f}", f"{last:,.0f}", duration(times[last]), _power(times),
            size(held[last]) if last in held else "-", _power(held),
        ))  # fmt: skip
    return Section(head, lines)


def _power(points: Mapping[float, float]) -> str:
    power = exponent({place: cost for place, cost in points.items() if cost > 0})
    return "-" if power is None else f"{power:.2f}"


def _split(rows: Sequence[Row]) -> Section:
    """Parts down, cases across: seconds and the share of the whole."""
    cases = _cases(rows)
    parts = dict.fromkeys(row.quantity for row in rows)
    whole = {name: sum(row.median for row in case.values()) for name, case in cases.items()}

    def cell(name: str, part: str) -> str:
        row = cases[name].get(part)
        return "-" if row is None else f"{duration(row.median)}, {100 * row.median / whole[name]:.0f} %"

    lines: list[Sequence[str]] = [(part, *(cell(name, part) for name in cases)) for part in parts]
    return Section(("", *cases), [*lines, ("together", *(duration(whole[name]) for name in cases))])


def _cases(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.case, {})[row.quantity] = row
    return found


def _times(row: Row) -> str:
    return f"{row.median:.3g} ({row.least:.3g} to {row.most:.3g})"


def _memory(case: Rows, quantity: str) -> str:
    return size(case[quantity].median) if quantity in case else "-"
