"""How fast this code is, and how much memory it takes, beside a plain reference and the machine's own speed.

    python tools/benchmark.py [WHAT ...] [--quick] [--json FILE] [--compare OLD.json]
    python tools/benchmark.py growth --json docs/performance/growth.json
    python tools/benchmark.py --write docs/performance.md

Without WHAT: all but growth, tagger and emoji, and with --quick but parts. What is compared is measured in turn, so
that a busy machine slows both. OMP_NUM_THREADS sets the threads of a CPU. Exit code 1 where a target is missed.
--compare shows every value beside that of before. docs/performance.md says what is measured, and how.
"""

import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from tqdm import tqdm

from engine import cli
from engine.atomic import make_folder
from engine.run import environment, resolve_device
from tools.benchmarking import (
    drawn,
    encoding,
    evaluation,
    files,
    growth,
    loading,
    machine,
    one_image,
    parts,
    solver,
    tagger,
    training,
)
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.page import write_page
from tools.benchmarking.sections import plain, section
from tools.benchmarking.table import table
from tools.benchmarking.targets import missed

WHAT: dict[str, Callable[[Setting], Iterator[Measurement]]] = {
    "machine": machine.measure, "train": training.measure, "evaluate": evaluation.measure, "image": one_image.measure,
    "labels": encoding.measure, "solver": solver.measure, "loader": loading.measure, "parts": parts.measure,
    "tagger": tagger.measure, "growth": growth.measure, "emoji": drawn.measure,
}  # fmt: skip
# Only where they are named; quick or not.
ASIDE = {False: ("tagger", "growth", "emoji"), True: ("tagger", "growth", "emoji", "parts")}


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code, 1 if a target is missed."""
    parser = cli.parser(__doc__)
    names = ", ".join(WHAT)
    parser.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"{names}; without any, all but {', '.join(ASIDE[False])}"
    )
    parser.add_argument("--quick", action="store_true", help="less of it, in three minutes on two cores")
    parser.add_argument("--json", metavar="FILE", help="also write the measurements to this file")
    parser.add_argument("--compare", metavar="OLD.json", help="also show the medians of such a file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="measure nothing, write the page of all files below PAGE's folder"
    )
    args = cli.read(parser, argv)
    if unknown := [name for name in args.what if name not in WHAT]:
        parser.error(f"there is no {unknown[0]!r}: {names}")
    return cli.run(lambda: write_page(args.write) if args.write else report(args))


def report(args: Namespace) -> int:
    """Measures, prints the table, and writes it if a file is named; the exit code."""
    chosen = args.what or [name for name in WHAT if name not in ASIDE[args.quick]]
    old = files.read(args.compare) if args.compare else None
    if old:
        files.require_common(old, chosen, args.compare)
    if args.json:
        make_folder(Path(args.json).parent)
    run = measured(chosen, args)
    tables = [table(run.rows, old.rows)] if old else [plain(section(what, run)) for what in run.what]
    print("\n\n".join([*tables, said_of(run, old)]))
    below = missed(run.rows, busy=run.is_busy) if run.about["device"] == "cpu" else []
    for line in below:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if below else 0


def measured(chosen: Sequence[str], args: Namespace) -> files.Run:
    """The measurements of some benchmarks, which are written as soon as one of them is done."""
    setting = Setting(resolve_device(args.device), args.quick)
    words = [*args.what, *(["--quick"] if args.quick else [])]
    about: dict[str, Any] = {
        "command": " ".join(["python tools/benchmark.py", *words]), "date": time.strftime("%Y-%m-%d"),
        "device": setting.device.type, "load": machine.load(), "environment": environment(),
    }  # fmt: skip
    begun, rows = time.perf_counter(), []
    for what in chosen:
        for made in tqdm(WHAT[what](setting), what, leave=False, unit="measurement"):
            rows.append({"what": what, **made.row()})
        about["seconds"] = round(time.perf_counter() - begun)
        if args.json:
            files.write(args.json, about, rows)
    return files.of_rows(about, rows)


def said_of(run: files.Run, old: files.Run | None) -> str:
    """Machine, versions and what to bear in mind."""
    facts = run.about["environment"]
    hardware = ", ".join(facts["gpus"]) if run.about["device"] == "cuda" else facts["cpu"]
    lines = [f"{hardware}, {facts['threads']} threads, torch {facts['torch']}, {run.about['seconds']} s"]
    if run.is_busy:
        lines.append(f"other programs run here (load {run.about['load']}): ratios by processor time say more")
    if old and old.about.get("environment", {}).get("threads") != facts["threads"]:
        lines.append("before: another number of threads")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
