"""Fits the probabilities of a trained run on its validation images: python tools/calibrate.py RUN [KEY VALUE ...].

Training does so by itself where there are validation images; this does it again, with others (DATASETS.VAL my.csv), or
for runs without. The calibration is written into the checkpoint and a reliability diagram beside it, `reliability.png`.
With --test nothing is fitted: published scores and probabilities are compared on the test images, in a table and in
`calibration-test.json`.
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch
from yacs.config import CfgNode

from configs import flat, restore_config, with_overrides
from datasets import build_splits, build_test, identities
from datasets.compose import Splits
from engine import cli
from engine.atomic import atomic_write
from engine.provenance import file_identity, provenance
from engine.results import aligned
from engine.run import resolve_device
from engine.state import TrainingState, load_state, save_state
from tagging import CalibrationError, Tagger
from tagging.assessment import Assessment, assess
from tagging.build import calibrated
from tagging.figures import reliability_diagram
from tagging.portable import checkpoint_of, parts_of


def calibrate(path: Path, state: TrainingState, cfg: CfgNode, splits: Splits, device: torch.device) -> None:
    """Fits and writes the calibration and its diagram."""
    calibration = calibrated(parts_of(state), cfg, splits, device=device)
    save_state(path, state._replace(calibration=calibration.state()))
    with atomic_write(path.parent / "reliability.png") as file:
        reliability_diagram(calibration).savefig(file, format="png", dpi=120)
    print(f"{calibration.summary()}\n{path}\n{path.parent / 'reliability.png'}")


def compare(path: Path, state: TrainingState, cfg: CfgNode, splits: Splits, device: torch.device) -> None:
    """Prints and writes the quality of both kinds of score on the test images."""
    tagger = Tagger(parts_of(state), device=device)
    if not tagger.calibrated:
        raise CalibrationError(f"{path} has no calibration to test: run tools/calibrate.py without --test first")
    vocabulary, protocols = build_test(cfg, "test", splits)
    assessed = assess(tagger, list(protocols.values()))
    about = provenance(
        config=flat(cfg), checkpoint=dict(file_identity(path)), lists=identities(protocols.values()),
        seen=vocabulary.seen, unseen=vocabulary.unseen,
    )  # fmt: skip
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row._asdict().items()} for row in assessed
    ]
    with atomic_write(path.parent / "calibration-test.json", "w") as file:
        file.write(json.dumps({"about": about, "results": rows}, indent=2) + "\n")
    print(table(assessed))


def table(rows: list[Assessment]) -> str:
    """A row for each score and protocol."""
    head = ["score", "protocol", "F1@3", "mAP", "OF1 at thresholds", "ECE seen", "ECE unseen", "Brier"]
    cells = [
        [r.score, r.protocol, *(number(v, 2) for v in (r.f1, r.precision, r.overall_f1)),
         *(number(v, 4) for v in (r.ece_seen, r.ece_unseen, r.brier))] for r in rows
    ]  # fmt: skip
    return aligned([head, *cells], left=2)


def number(value: float, decimals: int) -> str:
    """The number, or a dash for nan."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("run", help="a run, a folder of runs (the newest), or a checkpoint")
    parser.add_argument("--test", action="store_true", help="compare on test images instead of fitting")
    cli.add_overrides(parser, "DATASETS.VAL my.csv")
    args = cli.read(parser)
    path = checkpoint_of(Path(args.run))
    state = load_state(path)
    cfg = with_overrides(restore_config(state.config), args.opts)
    splits = build_splits(cfg, train_needed=False, trained_on=state.seen)
    step = compare if args.test else calibrate
    step(path, state, cfg, splits, resolve_device(cfg.DEVICE))


if __name__ == "__main__":
    sys.exit(cli.run(main))
