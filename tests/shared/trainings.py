"""What tests of whole trainings look at: files, checkpoints, results and logs of runs."""

import json

from engine.checkpoint import load_checkpoint
from engine.run import newest_run
from tools.chaos import same

__all__ = ["differing", "files", "logged", "newest", "only_run", "results"]


def files(folder):
    """Contents of all files below a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differing(run, reference):
    """Parts of the last checkpoints that differ, but for the configuration, where paths do."""
    ours, theirs = load_checkpoint(run / "checkpoint.pth"), load_checkpoint(reference / "checkpoint.pth")
    return [key for key in ours.keys() | theirs.keys() if key != "config" and not same(ours[key], theirs[key])]


def results(folder):
    """The numbers of a folder of results."""
    return json.loads((folder / "results.json").read_text())["results"]


def newest(run, split="test"):
    """The folder of the newest test of a run."""
    return newest_run(run / split, "results.json")


def only_run(benchmark):
    """The folder of the only training."""
    (folder,) = benchmark.runs.iterdir()
    return folder


def logged(run):
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
