"""Recomputes every metric from files of scores and prints them as a table.

    python tools/evaluate_scores.py runs/ram/RUN/scores-RAM-GZSL.npz [more.npz ...] [--per-class] [--json metrics.json]

`test.py` writes such files with TEST.SAVE_SCORES True; their format is in `engine/results.py`, the definitions of the
metrics in `engine/metrics.py`. The table names each file as it was given.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import numpy as np

from engine import cli
from engine.atomic import atomic_write
from engine.metrics import measure
from engine.results import Result, format_table, read_scores, to_json


def evaluate(path: str, threshold: float | None) -> Result:
    """The metrics of a file of scores, with its path as the method and "-" as the protocol.

    Raises:
        ScoresError: if the file cannot be read or is no file of scores.
        MetricsError: if the threshold is not finite.
    """
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
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("files", nargs="+", metavar="scores.npz", help="files of scores, one row of the table each")
    parser.add_argument(
        "--threshold", type=float, help="also OP ... CF1 of scores >= this; for per-label probabilities"
    )
    parser.add_argument("--json", metavar="OUT", help="also write all metrics to this file, unrounded")
    parser.add_argument("--per-class", action="store_true", help="also print the AP of each label")
    args = cli.read(parser, argv)
    return cli.run(lambda: report(args.files, args.threshold, args.json, per_class=args.per_class))


def report(files: Sequence[str], threshold: float | None, json: str | None, *, per_class: bool) -> None:
    """Prints the table of all files, and writes their metrics to `json` if it is named."""
    results = [evaluate(path, threshold) for path in files]
    if json:
        text = to_json(results, {"files": [str(path) for path in files]})
        with atomic_write(json, "w") as file:
            file.write(text)
    print(format_table(results))
    if per_class:
        for result in results:
            print(f"\n{result.method}\n{format_per_class(result)}")


if __name__ == "__main__":
    sys.exit(main())
