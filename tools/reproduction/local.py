"""The runs of this machine: which are finished and tested, and which were interrupted.

They are recognised by their configuration, whatever their folders are called. Everything in OUTPUT_DIR is looked at;
interrupted runs only in the tool's own folder there, since another training might still be on its way.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from configs import ConfigError, flat, restore_config
from configs.schema import violation
from engine.atomic import make_folder
from tools.compare import is_number
from tools.reproduction.identity import INIT, differing, digest

__all__ = ["FOLDER", "Finished", "exclusive", "identity_of", "interrupted", "finished"]

FOLDER = "reproduce"  # of the tool, in OUTPUT_DIR
CHECKPOINT = "checkpoint.pth"


class Finished(NamedTuple):
    """A finished run with its test."""

    run: Path | None  # None: nothing was trained
    results: Mapping[str, Any]  # content of its newest results.json


def identity_of(run: Path) -> str | None:
    """The identity of a run folder; None where it has none, or it began with a run that is not there any more."""
    try:
        cfg = restore_config((run / "config.yml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    after = identity_of(Path(cfg.SOLVER.INIT)) if flat(cfg)[INIT] else ""
    return None if after is None else digest(differing(cfg), after)


def finished(output: Path) -> dict[str, Finished]:
    """The finished runs below a folder by identity; of several with one identity, the newest test."""
    found: dict[str, tuple[str, Finished]] = {}
    for path in output.rglob("results.json"):
        results = _results(path)
        if results is None:
            continue
        run = path.parent.parent.parent  # RUN/test/STAMP
        if results["about"]["checkpoint"] is None:
            identity, entry = digest(differing(results["about"]["config"])), Finished(None, results)
        elif (identity := identity_of(run)) and _is_final(run, results):  # type: ignore[assignment]
            entry = Finished(run, results)
        else:
            continue
        date = str(results["about"]["date"])
        if identity not in found or date > found[identity][0]:
            found[identity] = (date, entry)
    return {identity: entry for identity, (_, entry) in found.items()}


def interrupted(folder: Path) -> dict[str, Path]:
    """The run folders with a checkpoint below a folder by identity; of several with one identity, the newest."""
    found = {}
    for path in sorted(folder.rglob(CHECKPOINT), key=lambda path: path.stat().st_mtime):
        if identity := identity_of(path.parent):
            found[identity] = path.parent
    return found


@contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Waits until no other start of the tool works in a folder; gives what its children inherit to hold the place.

    Children that outlive a killed tool go on with their runs, which nobody else may touch before they end.
    """
    make_folder(folder)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"runs of another start are under way in {folder}: waiting for them to end", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _results(path: Path) -> dict[str, Any] | None:
    """The content of a results.json of a test, None where it is something else or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        about = content["about"]
        _ = [about[key] for key in ("date", "lists", "labels", "environment")]
        _ = [about["config"][key] for key in ("SOLVER.SELECT", "SOLVER.PATIENCE", "SOLVER.MAX_EPOCHS")]
        if not isinstance(about["date"], str) or violation(about["config"]):
            return None
        if about["checkpoint"] is not None and not isinstance(about["checkpoint"]["epoch"], int):
            return None
        numbers = [v for rows in content["results"].values() for row in rows.values() for v in row.values()]
        if not all(map(is_number, numbers)):
            return None
        return content if path.parent.parent.name == about["config"]["TEST.SPLIT"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _is_final(run: Path, results: Mapping[str, Any]) -> bool:
    """Whether the results are of the run's last checkpoint, or of the best one, tested as it was trained.

    Without its checkpoint a run is none: nothing can be said of its CLIP, and nothing begin with it.
    """
    if not (run / CHECKPOINT).is_file():
        return False
    config, checkpoint = results["about"]["config"], results["about"]["checkpoint"]
    trained = flat(restore_config((run / "config.yml").read_text(encoding="utf-8")))
    same = differing(config) == differing(trained)
    ends_early = config["SOLVER.SELECT"] == "best" or config["SOLVER.PATIENCE"] > 0
    is_last = ends_early or checkpoint["epoch"] > config["SOLVER.MAX_EPOCHS"]
    return same and is_last and "file" in checkpoint  # evaluations in training are of no file
