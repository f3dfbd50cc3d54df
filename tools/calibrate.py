"""Fits the probabilities of a trained run on its validation images: python tools/calibrate.py RUN [KEY VALUE ...].

Training does so by itself where there are validation images; this does it again, with others (DATASETS.VAL my.csv), or
for runs without. The calibration is written into the checkpoint and a reliability diagram beside it, `reliability.png`.
"""

import sys
from pathlib import Path

import matplotlib

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import restore_config, with_overrides
from datasets import build_splits
from engine import cli
from engine.atomic import atomic_write
from engine.run import resolve_device
from engine.state import load_state, save_state
from tagging.build import calibrated
from tagging.figures import reliability_diagram
from tagging.portable import checkpoint_of, parts_of


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("run", help="a run, a folder of runs (the newest), or a checkpoint")
    cli.add_overrides(parser, "DATASETS.VAL my.csv")
    args = cli.read(parser)
    path = checkpoint_of(Path(args.run))
    state = load_state(path)
    cfg = with_overrides(restore_config(state.config), args.opts)
    splits = build_splits(cfg, train_needed=False, trained_on=state.seen)
    calibration = calibrated(parts_of(state), cfg, splits, device=resolve_device(cfg.DEVICE))
    save_state(path, state._replace(calibration=calibration.state()))
    matplotlib.use("Agg")
    with atomic_write(path.parent / "reliability.png") as file:
        reliability_diagram(calibration).savefig(file, format="png", dpi=120)
    print(f"{calibration.summary()}\n{path}\n{path.parent / 'reliability.png'}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
