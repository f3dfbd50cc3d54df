"""Mean and standard deviation over seeds, as a table in Markdown.

    python tools/results_table.py RUN_1/test/results.json RUN_2/test/results.json ...

Each file is what `test.py` writes; all of them hold the same methods and protocols.
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import cli
from errors import UserError

COLUMNS = ("P@3", "R@3", "F1@3", "F1@5", "CF1@3", "mAP")


class TableError(UserError, ValueError):
    """A file that is not one of results, or one of other methods."""


def read(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Summaries by method and protocol."""
    try:
        nested = json.loads(path.read_text())
        return {(m, p): {c: float(s[c]) for c in COLUMNS} for m, rows in nested.items() for p, s in rows.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise TableError(f"{path} holds no results: {error}") from error


def table(runs: list[dict[tuple[str, str], dict[str, float]]]) -> str:
    """A row for each method and protocol; `a ± b` is mean and sample standard deviation where there are two runs.

    Raises:
        TableError: if the runs differ in methods or protocols.
    """
    if any(run.keys() != runs[0].keys() for run in runs):
        raise TableError("the files hold different methods or protocols")
    lines = [f"| method | protocol | {' | '.join(COLUMNS)} |", f"| --- | --- |{' ---: |' * len(COLUMNS)}"]
    for method, protocol in runs[0]:
        values = {c: [run[method, protocol][c] for run in runs] for c in COLUMNS}
        lines.append(f"| {method} | {protocol} | {' | '.join(_cell(v) for v in values.values())} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.2f}" if spread else f"{statistics.mean(values):.1f}"


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="results.json")
    args = cli.read(parser, arguments)
    return cli.run(lambda: print(table([read(path) for path in args.files])))


if __name__ == "__main__":
    sys.exit(main())
