"""Recomputes every metric from files of scores and prints them as a table.

    python tools/evaluate_scores.py runs/ram/RUN/scores-RAM-GZSL.npz [more.npz ...] [--per-class] [--json metrics.json]

`test.py` writes such files with TEST.SAVE_SCORES True; their format is in `engine/results.py`, the definitions of the
metrics in `engine/metrics.py`. The table names each file as it was given.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from engine.atomic import WriteError, atomic_write
from engine.metrics import MetricsError, measure
from engine.results import Result, ResultsError, ScoresError, format_table, read_scores, to_json


def evaluate(path: str, threshold: float | None) -> Result:
    scores, targets, names, _ = read_scores(path)
    return Result(path, "-", measure(scores, targets, threshold=threshold), names)


def format_per_class(result: Result) -> str:
    """One line per label, the highest AP first and those without a positive, which have none, last."""
    average_precision, positives = result.metrics.per_class["AP"], result.metrics.per_class["positives"]
    width = max(map(len, result.names))
    lines = [f"{'label':{width}}  positives      AP"]
    for label in np.argsort(-average_precision, kind="stable"):  # nan sorts last
        value = "-" if np.isnan(average_precision[label]) else f"{average_precision[label]:.2f}"
        lines.append(f"{result.names[label]:{width}}  {positives[label]:9}  {value:>6}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="scores.npz", help="files of scores, one row of the table each")
    parser.add_argument(
        "--threshold", type=float, help="also OP ... CF1 of scores >= this; for per-label probabilities"
    )
    parser.add_argument("--json", metavar="OUT", help="also write all metrics to this file, unrounded")
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each label")
    args = parser.parse_args(argv)
    try:
        results = [evaluate(path, args.threshold) for path in args.files]
        if args.json:
            text = to_json(results)
            with atomic_write(args.json, "w") as file:
                file.write(text)
    except (ScoresError, MetricsError, ResultsError, WriteError) as error:
        print(error, file=sys.stderr)
        return 2
    print(format_table(results))
    if args.per_class:
        for result in results:
            print(f"\n{result.method}\n{format_per_class(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
