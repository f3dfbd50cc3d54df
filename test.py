"""Tests RAM beside zero-shot CLIP: python test.py --config_file configs/coco.yml [KEY VALUE ...].

Takes the checkpoint in TEST.WEIGHT, or that of the newest run in OUTPUT_DIR, and writes its results into a new folder
beside it, test/YYYYmmdd-HHMMSS.
"""

import interrupts  # noqa: F401 - before all that takes long

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from yacs.config import CfgNode

from configs import flat, load_config
from datasets import build_splits, build_test, evaluated, identities
from datasets.compose import Splits, fingerprint
from engine import cli
from engine.checkpoint import CheckpointError
from engine.ema import Ema
from engine.evaluate import Row, behind, evaluate, rows_of
from engine.evaluators import MultiLabel, Scored
from engine.log import RunLog
from engine.provenance import file_identity, provenance
from engine.results import format_table, write_results, write_scores
from engine.run import autocast_dtype, new_run, newest_run, resolve_device
from engine.state import TrainingState, load_state
from model import UNTRAINED, build_method, build_zero_shot, load_towers
from model.compiled import compile_parts
from model.precision import store_in
from parallel import connect, from_first, is_first, joined, rank, world_size


def checkpoint_path(cfg: CfgNode) -> Path:
    """TEST.WEIGHT, or of the newest run the best checkpoint, if that is asked for and there is one, or the last."""
    if cfg.TEST.WEIGHT:
        return Path(cfg.TEST.WEIGHT)
    folder = newest_run(cfg.OUTPUT_DIR, "checkpoint.pth")
    if folder is None:
        raise CheckpointError(f"no run with a checkpoint.pth in {cfg.OUTPUT_DIR}: train first, or set TEST.WEIGHT")
    best = folder / "best.pth"
    return best if cfg.SOLVER.SELECT == "best" and best.is_file() else folder / "checkpoint.pth"


def differences(cfg: CfgNode, state: TrainingState, splits: Splits) -> Iterator[str]:
    """What was otherwise when the checkpoint was trained, in one line each."""
    trained, now = (flat(CfgNode.load_cfg(text)) for text in (state.config, cfg.dump()))  # both with lists for tuples
    for key, value in trained.items():
        if key.startswith(("MODEL.", "INPUT.")) and key != "MODEL.CLIP_WEIGHTS" and now.get(key) != value:
            yield f"{key} was {value} in training and is {now.get(key)}"
    cut = splits.train if not cfg.DATASETS.TEST else None  # what the test images were cut from
    if cut is not None and state.images != fingerprint(cut):
        yield "the training images are not those of the training: test images may have been trained on"
    if state.texts != dict(splits.texts):
        yield "the labels had other texts in training than DATASETS.LABELS gives"


def untrained_rows(cfg: CfgNode, splits: Splits, device: torch.device) -> list[Row]:
    """The row of a method that is tested as it is."""
    model = build_method(cfg, load_towers(cfg), seen=len(splits.vocabulary.seen), texts=splits.texts).to(device)
    store_in(autocast_dtype(cfg.TEST.AMP, device), model)
    compile_parts(model, cfg.COMPILE)
    return rows_of(model.eval())


def trained_rows(cfg: CfgNode, state: TrainingState, path: Path, splits: Splits, device: torch.device) -> list[Row]:
    """Zero-shot CLIP, the method of a checkpoint, and the same with averaged weights if there are any."""
    towers = load_towers(cfg)
    if state.clip != towers.identity:
        raise CheckpointError(f"{path} needs the CLIP {state.clip}; MODEL.CLIP_WEIGHTS gives {towers.identity}")
    for line in differences(cfg, state, splits):
        warnings.warn(line, stacklevel=1)
    labels = (*state.seen, *state.unseen)
    model = build_method(cfg, towers, seen=len(state.seen), texts=splits.texts, labels=labels).to(device).eval()
    try:
        model.load_trained_state(state.model)
    except ValueError as error:
        way_out = f"test with the run's own configuration, --config_file {path.parent / 'config.yml'}"
        raise CheckpointError(f"{path}: {error}; {way_out}") from error
    ema = None
    if state.ema is not None:
        ema = Ema(model.trained_state(), decay=0.0)  # it will not be updated
        ema.load_state_dict(state.ema)
    zero_shot = build_zero_shot(cfg, towers, texts=splits.texts).to(device)
    store_in(autocast_dtype(cfg.TEST.AMP, device), zero_shot, model)
    compile_parts(model, cfg.COMPILE)
    return rows_of(zero_shot, model, ema=ema)


def test(cfg: CfgNode) -> None:
    """Prints the table of results, and writes it and, if asked for, the raw scores."""
    device = resolve_device(cfg.DEVICE)
    connect(device)  # all test what the first finds, though a training may be writing there
    path = from_first(lambda: checkpoint_path(cfg) if cfg.MODEL.METHOD not in UNTRAINED else None)
    state = from_first(lambda: None if path is None else load_state(path))
    splits = build_splits(cfg, train_needed=False, trained_on=() if state is None else state.seen)
    print(splits)
    data = build_test(cfg, cfg.TEST.SPLIT, splits, share=(rank(), world_size()))
    vocabulary, protocols = data.vocabulary, evaluated(cfg, data)
    if path is None or state is None:
        rows = untrained_rows(cfg, splits, device)
    else:
        if set(vocabulary.seen) - set(state.seen) or set(vocabulary.unseen) & set(state.seen):
            warnings.warn(
                f"{path} was trained on other seen labels ({len(state.seen)}) than the benchmark's "
                f"({len(vocabulary.seen)}): its seen and unseen results mean something else", stacklevel=1,
            )  # fmt: skip
        rows = trained_rows(cfg, state, path, splits, device)
    kept: dict[str, Scored] = {}

    def keep(method: str, protocol: str, evaluator: MultiLabel) -> None:
        name = "-".join(f"{method} {protocol}".replace("(", "").replace(")", "").split())
        kept[f"scores-{name}.npz"] = evaluator.scored()

    results = evaluate(
        rows, protocols, device=device, autocast=autocast_dtype(cfg.TEST.AMP, device),
        keep=keep if cfg.TEST.SAVE_SCORES else None,
    )  # fmt: skip
    if not is_first():
        return
    checkpoint = None if path is None or state is None else {
        **file_identity(path), "method": state.method, "epoch": state.epoch, "batch": state.batch, "step": state.step
    }  # fmt: skip
    about = provenance(
        config=flat(cfg), checkpoint=checkpoint, lists=identities(protocols), seen=vocabulary.seen,
        unseen=vocabulary.unseen,
    )  # fmt: skip
    folder = new_run((Path(cfg.OUTPUT_DIR) / cfg.MODEL.METHOD if path is None else path.parent) / cfg.TEST.SPLIT)
    write_results(folder, results, about)
    with RunLog(
        folder, wandb_project=cfg.WANDB_PROJ if cfg.WANDB else None, wandb_config=flat(cfg),
        wandb_group=cfg.DATASETS.NAMES, wandb_job=f"test-{cfg.MODEL.METHOD}",
        wandb_tags=(cfg.DATASETS.NAMES, cfg.MODEL.METHOD, f"seed-{cfg.SOLVER.SEED}"),
    ) as log:  # fmt: skip
        log.results(cfg.TEST.SPLIT, results, step=0 if state is None else state.step)
    for name, scored in kept.items():
        write_scores(folder / name, scored.scores, scored.targets, scored.names, scored.images)
    print(f"\n{cfg.DATASETS.NAMES}, {cfg.TEST.SPLIT} images\n{format_table(results)}\n\nresults: {folder}")
    if state is not None and (shortfall := behind(results, rows[-1].name, rows[0].name)):
        print(shortfall)


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    cli.add_configuration(parser)
    cli.add_overrides(parser, "TEST.WEIGHT FILE")
    args = cli.read(parser)
    with joined():
        test(load_config(args.config_file, args.opts))


if __name__ == "__main__":
    sys.exit(cli.run(main))
