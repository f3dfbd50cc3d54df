"""Result files: what came out of a run, small enough to be committed, and enough for all tables and figures.

Who has the file of a run needs neither the run nor the machine that it ran on. Identity, configuration and origin are
in it, no path of a machine is.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.atomic import atomic_write, make_folder
from errors import UserError
from files import read_text
from tools.compare import is_number
from tools.reproduction.plan import Benchmark, Job

__all__ = [
    "FORMAT", "METRICS", "Outcome", "OutcomeError", "collect", "content_of", "curve_of", "host_peak", "log_of", "read",
    "seconds_of", "write",
]  # fmt: skip

FORMAT = "result of a run"
METRICS = ("F1@3", "mAP")
AVERAGED = " (EMA)"  # end of the name of a method with averaged weights
CURVE = 40  # points of a curve of losses, at most


class OutcomeError(UserError, ValueError):
    """A result file that cannot be read, or a run without results; the message begins with the path."""


class Outcome(NamedTuple):
    """A result file."""

    path: Path
    content: Mapping[str, Any]

    @property
    def identity(self) -> str:
        """Which run it is of (`identity.py`)."""
        return self.content["identity"]

    @property
    def benchmark(self) -> Benchmark:
        """What it shares with others."""
        return Benchmark(tuple(self.content["benchmark"]["files"]), tuple(self.content["benchmark"]["overrides"]))

    def method(self, weights: str) -> str:
        """The name of the method under which its results stand: "ema", where there are averaged weights, or "raw"."""
        names = list(self.content["results"])
        if not names[-1].endswith(AVERAGED):
            return names[-1]
        return names[-1] if weights == "ema" else names[-1].removesuffix(AVERAGED)

    def values(self, weights: str) -> dict[str, float]:
        """By protocol and metric, such as "ZSL F1@3"."""
        rows = self.content["results"][self.method(weights)]
        return {f"{protocol} {metric}": row[metric] for protocol, row in rows.items() for metric in METRICS}

    def overall(self, weights: str, metric: str) -> float:
        """A metric of all labels (GZSL)."""
        return self.content["results"][self.method(weights)]["GZSL"][metric]


def read(path: Path) -> Outcome | None:
    """The outcome in a file; None where it holds something else.

    Raises:
        OutcomeError: if it cannot be read, or is damaged.
    """
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            return None
        outcome = Outcome(path, content)
        numbers = [value for weights in ("ema", "raw") for value in outcome.values(weights).values()]
        if not all(map(is_number, (*numbers, content["seconds"]))):
            raise TypeError("a metric is no number")
        _ = outcome.identity, outcome.benchmark, content["run"], content["seed"], content["lists"], content["curve"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise OutcomeError(f"{path} is no result file: {' '.join(str(error).split())}") from error
    return outcome


def collect(folders: Iterable[Path]) -> dict[str, Outcome]:
    """All outcomes below some folders by identity; where there are several of one, the first."""
    found: dict[str, Outcome] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.json")):
            outcome = read(path)
            if outcome is not None:
                found.setdefault(outcome.identity, outcome)
    return found


def write(folder: Path, name: str, content: Mapping[str, Any]) -> Outcome:
    """Writes a result file into a folder, which is made if there is none.

    Raises:
        WriteError: if the system refuses.
    """
    make_folder(folder)
    with atomic_write(folder / name, "w") as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return Outcome(folder / name, content)


def content_of(
    job: Job, tested: Mapping[str, Any], log: Sequence[Mapping[str, Any]], *, clip: str | None, seconds: float,
    memory: float | None,
) -> dict[str, Any]:  # fmt: skip
    """What a result file holds.

    Args:
        job: the run.
        tested: the content of `results.json`.
        log: the lines of its log.
        clip: identity of the frozen CLIP, where it is known.
        seconds: that the run took.
        memory: largest of a process on the processor, GB, where it was measured.
    """
    about, benchmark = tested["about"], job.benchmark.portable
    peaks = [line["peak_memory_gb"] for line in log if "peak_memory_gb" in line]
    return {
        "format": FORMAT, "run": job.run, "seed": job.seed, "identity": job.identity,
        "benchmark": {"files": list(benchmark.files), "overrides": list(benchmark.overrides)},
        "config": job.config, "after": job.after.identity if job.after else None,
        "results": {
            method: {protocol: {k: round(v, 4) for k, v in row.items()} for protocol, row in rows.items()}
            for method, rows in tested["results"].items()
        },
        "lists": about["lists"], "labels": about["labels"],
        "clip": clip if about["config"]["MODEL.CLIP_WEIGHTS"] != "random" else None,  # of another seed it is another
        "seconds": round(seconds, 1),
        "memory_gb": {"gpu": round(max(peaks), 2) if peaks else None, "host": memory and round(memory, 2)},
        "curve": curve_of(log), "date": about["date"], "environment": about["environment"],
    }  # fmt: skip


def curve_of(log: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What a log says of a training: pairs of step and loss, and F1@3 and mAP of every evaluation.

    A killed run logs some steps again; the last line counts.
    """
    losses = {line["step"]: line["loss"] for line in log if line["kind"] == "train" and line.get("loss") is not None}
    steps = sorted(losses)
    kept = steps[:: -(-len(steps) // CURVE)] if steps else []
    evaluated: dict[tuple[int, str, str], dict[str, float]] = {}
    for line in log:
        for key, value in line.items():
            method, _, rest = key.partition("/")
            protocol, _, metric = rest.partition("/")
            if metric in METRICS and line["kind"] in ("val", "test"):
                entry = evaluated.setdefault((line["epoch"], method, protocol), {})
                entry[metric] = round(value, 4)
    return {
        "loss": [[step, round(losses[step], 5)] for step in kept],
        "evaluated": [{"epoch": e, "method": m, "protocol": p, **values} for (e, m, p), values in evaluated.items()],
    }


def seconds_of(log: Sequence[Mapping[str, Any]]) -> float:
    """How long a run was on its way: the time of its lines, which begins anew where it was resumed."""
    times = [0.0, *(line["time"] for line in log)]
    ends = [one for one, following in zip(times, [*times[1:], 0.0], strict=True) if following < one]
    return sum(ends)


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl in a run folder; none where there is no log. What is no line of a log is left out."""
    try:
        text = (folder / "log.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:  # cut off
            continue
        if isinstance(content, dict) and {"kind", "time"} <= content.keys():
            lines.append(content)
    return lines


def host_peak(usage_kilobytes: int) -> float:
    """GB of the peak that the system counts for a process."""
    return usage_kilobytes * (1 if os.uname().sysname == "Darwin" else 1024) / 1e9
