"""The page of all results, docs/results.md: made from what lies below its folder's `results`, and nothing else.

All numbers come from result files, so the page can be made anew anywhere and compared with the committed one. What
people have to say of a table stands in `results/notes/BENCHMARK-TABLE.md` and is taken over as it is.
"""

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.atomic import atomic_write, make_folder
from tools.reproduction import speed, tables
from tools.reproduction.orderings import findings, statements
from tools.reproduction.outcomes import collect
from tools.reproduction.plan import ROOT, Benchmark, plan
from tools.reproduction.report import Report, markdown, report

__all__ = ["page_text", "reports_of", "write_page"]

RESULTS, NOTES, FIGURES = "results", "notes", Path("figures") / "results"
HEAD = """# Results

Made by `python tools/reproduce.py --write docs/results.md` from the result files in `docs/results/`, not by hand
([reproduce.md](reproduce.md) says how runs are made, and the rule by which an ordering of the paper holds).
Test images; F1@3 and mAP in percent, mean ± sample standard deviation over seeds, best of a column in bold; averaged
weights (EMA) where a method has them. The paper's numbers are on its own benchmarks with CLIP ViT-B/16. Other results:
probabilities ([probabilities.md](probabilities.md)), localisation ([localisation.md](localisation.md)), few images
([data.md](data.md)), search ([search.md](search.md))."""
"""The text above the first benchmark."""


def reports_of(page: Path) -> dict[Benchmark, list[Report]]:
    """The tables of every benchmark of which two rows or more are there, in the order of their names.

    Args:
        page: its file, which need not be there.
    """
    folder = page.parent / RESULTS
    outcomes, measured = collect([folder]), speed.collect([folder])
    made = {}
    for benchmark in sorted({outcome.benchmark for outcome in outcomes.values()}):
        there = {identity: one for identity, one in outcomes.items() if one.benchmark == benchmark}
        seeds = sorted({one.content["seed"] for one in there.values()} - {None}) or [1]
        here = benchmark._replace(files=tuple(str(ROOT / file) for file in benchmark.files))
        # Tables with levels have many runs to look for.
        thinned = any("DATASETS.KNOWN" in one.content["config"] for one in there.values())
        names = [name for name in tables.NAMES if thinned or not tables.has_levels(name)]
        planned = plan(names, here, seeds)
        all_tables = [report(table, planned.dataset, there, speeds=measured)
                      for table in planned.tables]  # fmt: skip
        made[benchmark] = [one for one in all_tables if _is_shown(one)]
    return {benchmark: found for benchmark, found in made.items() if found}


def page_text(page: Path) -> str:
    """The page as it has to be, in Markdown.

    Args:
        page: its file, which need not be there.
    """
    parts = [HEAD]
    for benchmark, reports in reports_of(page).items():
        parts += [f"## {benchmark.title}", _origin(benchmark, reports)]
        for made in reports:
            parts += _section(benchmark, made, page.parent / RESULTS / NOTES)
    return "\n\n".join(parts) + "\n"


def write_page(page: Path) -> None:
    """Writes the page and its figures, which are no longer there if nothing is shown by them.

    Raises:
        WriteError: if the system refuses.
    """
    from tools.reproduction.pictures import result_figure, training_figure  # matplotlib takes a second to import

    folder = page.parent / FIGURES
    make_folder(folder)
    kept = set()
    for benchmark, reports in reports_of(page).items():
        for made in reports:
            if tables.is_aside(made.planned.table.name):
                continue
            for kind, draw in (("", result_figure), ("-training", training_figure)):
                figure = draw(made)
                if figure is not None:
                    path = folder / f"{_stem(benchmark, made)}{kind}.png"
                    kept.add(path)
                    with atomic_write(path) as file:
                        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
    before = page.read_text(encoding="utf-8") if page.is_file() else ""
    for path in set(folder.glob("*.png")) - kept:
        if f"({(FIGURES / path.name).as_posix()})" in before:  # not of somebody else
            path.unlink()
    with atomic_write(page, "w") as file:
        file.write(page_text(page))


def _is_shown(made: Report) -> bool:
    """Whether two rows or more are there, and something of every level where there are levels."""
    there = {outcome.identity for line in made.lines for outcome in line.outcomes}
    jobs = [job for row in made.planned.rows for job in row.jobs if job.seed is not None and job.identity in there]
    levels = {level.name for level in made.planned.table.levels}
    return sum(bool(line.outcomes) for line in made.lines) > 1 and levels <= {job.level for job in jobs}


def _section(benchmark: Benchmark, made: Report, notes: Path) -> Iterator[str]:
    """A table with its figures and what is found; of what is not the paper's the numbers alone."""
    table, note = made.planned.table, notes / f"{_stem(benchmark, made)}.md"
    is_aside = tables.is_aside(table.name)
    yield f"### {table.title}" if is_aside else f"### {table.paper}: {table.title}"
    yield f"{made.spread} `{_command(benchmark, table.name)}`"
    yield markdown(made)
    if note.is_file():
        yield note.read_text(encoding="utf-8").strip()
    if is_aside and not table.orderings:
        return
    yield statements(made)
    if said := findings(made):
        yield "\n".join(f"* {line}" for line in said)
    if is_aside:
        return
    yield f"![{table.paper}, F1@3]({(FIGURES / _stem(benchmark, made)).as_posix()}.png)"
    if any(outcome.content["curve"]["loss"] for line in made.lines for outcome in line.outcomes):
        yield f"![{table.paper}, trainings]({(FIGURES / _stem(benchmark, made)).as_posix()}-training.png)"


def _origin(benchmark: Benchmark, reports: list[Report]) -> str:
    """What the results of a benchmark were made by."""
    outcomes = {o.identity: o for made in reports for line in made.lines for o in line.outcomes}.values()
    hours = sum(outcome.content["seconds"] for outcome in outcomes) / 3600
    facts = [outcome.content["environment"] for outcome in outcomes]
    where = sorted({_machine(fact) for fact in facts})
    commits = sorted({str(fact.get("commit"))[:10] for fact in facts})
    return (
        f"{len(outcomes)} runs of {', '.join(f'`{file}`' for file in benchmark.files)}, {hours:.1f} hours of them; "
        f"{statistics.mean(o.content['seconds'] for o in outcomes) / 60:.1f} minutes each on average. "
        f"On {'; '.join(where)}. Commits: {', '.join(commits)}."
    )


def _machine(facts: Mapping[str, Any]) -> str:
    hardware = ", ".join(sorted(set(facts["gpus"]))) or f"{facts['cpu']} ({facts['cpu_count']} cores)"
    return f"{hardware}, torch {facts['torch']}"


def _command(benchmark: Benchmark, table: str) -> str:
    files = " ".join(f"--config_file {file}" for file in benchmark.files)
    return " ".join(["python tools/reproduce.py --table", table, files, *benchmark.overrides])


def _stem(benchmark: Benchmark, made: Report) -> str:
    text = "-".join([*benchmark.names, *benchmark.overrides, made.planned.table.name])
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in text)
