"""Reproduces tables of the paper: runs what they need, and sets what came out beside the published numbers.

    python tools/reproduce.py --table 5 --config_file configs/shapes.yml --seeds 3 [KEY VALUE ...]
    python tools/reproduce.py --write docs/results.md

What is finished is not run again, what was interrupted goes on; --dry-run shows the commands; see docs/reproduce.md.
"""

import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch
from yacs.config import CfgNode

from configs import ConfigError, load_config
from engine import cli
from engine.atomic import atomic_write, make_folder
from tools.reproduction import tables
from tools.reproduction.identity import INIT
from tools.reproduction.local import exclusive
from tools.reproduction.orderings import findings, statements
from tools.reproduction.page import write_page
from tools.reproduction.plan import ROOT, Benchmark, Plan, plan
from tools.reproduction.progress import Progress
from tools.reproduction.report import Report, cell, markdown, report
from tools.reproduction.runner import Failure, environments, run_all
from tools.reproduction.work import DONE, LEFT, Work

MOST = 8  # jobs at once on a processor: more of them fight for the memory
COMMITTED = ROOT / "docs" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code, 1 if a run failed."""
    parser = cli.parser(__doc__)
    names = ", ".join(tables.NAMES)
    parser.add_argument("--table", action="append", metavar="NAME", help=f"{names} (1 to 4: comparison), 5,6 or all")
    cli.add_configuration(parser)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N (3)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs at once; one for each GPU, or up to 8 on a processor"
    )
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="averaged, where there are any, or not"
    )
    parser.add_argument("--only", metavar="RUN,RUN", help="make no runs but these of tools/reproduction/tables.yml now")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the result files; OUTPUT_DIR/reproduce/results")
    parser.add_argument("--dry-run", action="store_true", help="only show the commands")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the page of all results below PAGE/../results"
    )
    cli.add_overrides(parser, "DATASETS.ROOT_DIR /data/coco")
    args = cli.read(parser, arguments)
    if not args.table and not args.write:
        parser.error("name a --table, or a page to --write")
    return cli.run(lambda: reproduce(args))


def reproduce(args: Namespace) -> int:
    """Runs and shows the tables, and writes the page; the exit code."""
    failures = _tables(args) if args.table else []
    if args.write and not args.dry_run:
        write_page(args.write)
        print(f"\npage: {args.write}")
    return 1 if failures else 0


def _tables(args: Namespace) -> list[Failure]:
    if args.seeds < 1 or (args.jobs is not None and args.jobs < 1):
        raise ConfigError("--seeds and --jobs have to be 1 or more")
    cfg = load_config(args.config_file, args.opts)
    if INIT in args.opts[::2]:
        raise ConfigError(f"{INIT} is each row's own: what a row begins with stands in tables.yml")
    pairs = [pair for pair in zip(args.opts[::2], args.opts[1::2], strict=True) if pair[0] != "OUTPUT_DIR"]
    benchmark = Benchmark(tuple(args.config_file or ()), tuple(word for pair in pairs for word in pair))
    planned = plan(tables.wanted(args.table), benchmark, range(1, args.seeds + 1))
    output = Path(cfg.OUTPUT_DIR)
    only = [name.strip() for name in (args.only or "").split(",") if name.strip()]
    work = Work(planned, output, args.out or output / "reproduce" / "results", COMMITTED, only)
    if args.dry_run:
        _show(work)
        return []
    make_folder(work.out)  # what cannot be written is said before hours are spent
    failures = _run(work, cfg, args.jobs)
    reports = [report(one, planned.dataset, work.outcomes, weights=args.weights, speeds=work.speeds)
               for one in planned.tables]  # fmt: skip
    for made in reports:
        text = f"## {made.planned.table.paper}: {made.planned.table.title}\n\n{summary(made)}"
        print(f"\n{text}")
        with atomic_write(work.out / f"table-{made.planned.table.name}.md", "w") as file:
            file.write(f"{text}\n")
    if cfg.WANDB:
        _log(reports, planned, cfg, work.folder)
    for failure in failures:
        print(f"failed: {failure.name}; log: {failure.log}", file=sys.stderr)
    return failures


def summary(made: Report) -> str:
    """A table with what is found, as it is shown."""
    said = "\n".join(f"* {line}" for line in findings(made))
    return "\n\n".join(part for part in (made.spread, markdown(made), statements(made), said) if part)


def _show(work: Work) -> None:
    """Prints the plan."""
    for one in work.plan.tables:
        for row in one.rows:
            if row.note:
                print(f"table {one.table.name}, {row.name}: {row.note}")
    counts: dict[str, int] = {}
    for title, status, commands in work.commands():
        counts[status] = counts.get(status, 0) + 1
        print(f"\n{title}: {status}")
        if status not in (DONE, LEFT):
            print("\n".join(f"  {command}" for command in commands))
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.items()))


def _run(work: Work, cfg: CfgNode, jobs: int | None) -> list[Failure]:
    """Runs what is missing."""
    open_jobs = len(work.open_jobs)
    if not work.tasks():
        work.take_over()
        return []
    gpus = _gpus(cfg.DEVICE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(jobs or len(gpus) or min(cores, MOST), max(open_jobs, 1))
    with exclusive(work.folder) as lock:
        work.look()  # at what another start has done meanwhile
        work.take_over()
        tasks = work.tasks()
        progress = Progress(len(tasks), jobs, [one.content["seconds"] for one in work.outcomes.values()])
        progress.begin(len(work.plan.jobs) - len(work.open_jobs))
        return run_all(tasks, environments(jobs, cores=cores, gpus=gpus), progress.said, kept_open=[lock])


def _gpus(device: str) -> list[str]:
    """The GPUs that jobs are spread over; none where DEVICE says which, or there are none."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [name for name in visible.split(",") if name] or list(map(str, range(torch.cuda.device_count())))


def _log(reports: Sequence[Report], planned: Plan, cfg: CfgNode, folder: Path) -> None:
    """A table of each report in Weights & Biases, in a run of its own."""
    from engine.dashboard import Dashboard

    place = folder / time.strftime("report-%Y%m%d-%H%M%S")
    make_folder(place)
    facts: dict[str, Any] = {"benchmark": planned.benchmark.title, "tables": [r.planned.table.name for r in reports]}
    board = Dashboard(
        place, project=cfg.WANDB_PROJ, config=facts, group=cfg.DATASETS.NAMES, job="reproduce",
        tags=(cfg.DATASETS.NAMES, "reproduce"),
    )  # fmt: skip
    for made in reports:
        rows = [[line.name, *(cell(line.values[c]) for c in made.columns), *(str(line.paper.get(c, "-")) for c in
                 made.paper_columns)] for line in made.lines]  # fmt: skip
        heads = ["row", *made.columns, *(f"paper, {column}" for column in made.paper_columns)]
        board.table(f"test/{made.planned.table.paper}", heads, rows)
    board.finish(failed=False)


if __name__ == "__main__":
    sys.exit(main())
