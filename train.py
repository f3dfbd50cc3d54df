"""Trains RAM: python train.py --config_file configs/coco.yml [--resume auto] [KEY VALUE ...].

Every run gets a folder of its own in OUTPUT_DIR: config.yml, environment.json, log.jsonl, checkpoint.pth and the
results of each evaluation. `--resume auto` goes on with the newest run in OUTPUT_DIR. SIGTERM saves and ends, SIGUSR1
saves and goes on. `torchrun --nproc_per_node 4 train.py ...` trains on several GPUs, docs/scaling.md.
"""

import interrupts  # noqa: F401 - before all that takes long

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from configs import AUTO, ConfigError, flat, load_config, restore_config
from datasets import build_splits, build_test, build_train, evaluated, identities, image_folder
from datasets.compose import fingerprint
from engine import cli
from engine.atomic import atomic_write
from engine.cached import CachedLoader, computed_once
from engine.checkpoint import CheckpointError, random_state, set_random_state
from engine.claim import claimed
from engine.ema import Ema, decay_over
from engine.evaluate import behind, evaluate, find, rows_of
from engine.log import NoLog, RunLog
from engine.optim import optimizers, set_rates
from engine.provenance import provenance
from engine.results import format_table, write_results
from engine.run import autocast_dtype, new_run, newest_run, resolve_device, write_environment
from engine.schedules import Settings, schedule
from engine.signals import Requests, requests
from engine.state import TrainingState, load_state, save_state
from engine.train import Trainer
from model import RAM, ModelError, build_method, build_zero_shot, load_towers
from model.compiled import compile_parts
from model.precision import stored_in
from parallel import connect, from_first, is_first, joined, rank, wait_for_all, world_size
from tagging import CalibrationError, Tagger
from tagging.build import calibrated
from tagging.portable import parts_of

CHECKPOINT, BEST, CONFIG = "checkpoint.pth", "best.pth", "config.yml"
FREE_ON_RESUME = (  # keys that do not change what is trained; a section stands for all its keys
    "DEVICE", "OUTPUT_DIR", "WANDB", "WANDB_PROJ", "DATALOADER.NUM_WORKERS", "TEST", "SOLVER.LOG_PERIOD",
    "SOLVER.CHECKPOINT_PERIOD", "SOLVER.NONFINITE", "DATALOADER.READ_TRUNCATED", "SOLVER.MAX_EPOCHS",
    "SOLVER.PATIENCE", "INPUT.MAX_PIXELS", "SOLVER.INIT",  # a training that goes on has begun already
    "DATASETS.ROOT_DIR", "DATASETS.IMAGE_DIR", "DATASETS.PACK", "MODEL.CLIP_WEIGHTS",
)  # fmt: skip
# Values that differ by rounding, for other machines.
ALIKE = {"MODEL.OT_SOLVER": ("sinkhorn", "native", "triton"), "COMPILE": ("off", "on", "graphs"),
         "DATALOADER.CACHE": (False, True)}  # fmt: skip
WHAT_TO_TRY = "try more images or epochs, or lower rates of the prompts (SOLVER.BASE_LR_SGD); docs/data.md, Few images"


class Run:
    """A training run: model, data, optimisers, and where it stands."""

    def __init__(self, cfg: CfgNode) -> None:
        if cfg.DATALOADER.CACHE and cfg.INPUT.AUGMENT:
            raise ConfigError(
                "DATALOADER.CACHE keeps what is computed of an image, and augmentation makes another one of it in "
                "every epoch: set INPUT.AUGMENT False, or DATALOADER.CACHE False"
            )
        if cfg.DATALOADER.CACHE and cfg.COMPILE == "graphs":
            raise ConfigError("DATALOADER.CACHE leaves out the part that begins CUDA graphs: set COMPILE on, or off")
        self.device = resolve_device(cfg.DEVICE)
        connect(self.device)
        share = rank(), world_size()
        self.splits = build_splits(cfg)
        self.vocabulary, self.loader = build_train(cfg, self.splits, share=share)
        self.batches: Any = self.loader  # a CachedLoader where images are kept
        self.split = "test" if self.splits.val is None else "val"
        chosen = {
            "SELECT best": cfg.SOLVER.SELECT == "best",
            f"PATIENCE {cfg.SOLVER.PATIENCE}": cfg.SOLVER.PATIENCE > 0,
        }
        too_few = cfg.DATASETS.VAL_FRACTION == AUTO  # said by the splits; the last epoch is taken then
        if self.split == "test" and not too_few:
            for setting in (name for name, is_set in chosen.items() if is_set):
                raise ConfigError(f"SOLVER.{setting} needs validation images: set DATASETS.VAL or VAL_FRACTION")
        self.protocols = evaluated(cfg, build_test(cfg, self.split, self.splits, share=share))
        if self.protocols[-1].name != "GZSL" and any(chosen.values()):
            raise ConfigError("SOLVER.SELECT best and SOLVER.PATIENCE go by GZSL, which TEST.PROTOCOLS leaves out")

        towers = load_towers(cfg)
        self.clip = towers.identity
        torch.manual_seed(cfg.SOLVER.SEED)
        assert self.splits.train is not None  # only an evaluation does without
        self.texts, self.images = dict(self.splits.texts), fingerprint(self.splits.train)
        seen = len(self.vocabulary.seen)
        labels = self.vocabulary.all
        self.model = build_method(cfg, towers, seen=seen, texts=self.texts, labels=labels).to(self.device)
        compile_parts(self.model, cfg.COMPILE)
        with torch.no_grad():
            self.model.eval().encode_labels(labels)  # a label that cannot be encoded is refused before the training
        self.zero_shot = build_zero_shot(cfg, towers, texts=self.texts).to(self.device)
        if not self.model.groups():
            raise ModelError(f"MODEL.METHOD {cfg.MODEL.METHOD} has nothing to train: test it with test.py")
        if self.loader.dataset.known is not None and not self.model.takes_unknown:
            raise ModelError(
                f"MODEL.METHOD {cfg.MODEL.METHOD} needs every label of an image, and {self.splits.train.source} has "
                "some that are not known (-1): choose a method for missing labels, or set DATASETS.UNKNOWN absent"
            )
        if cfg.DATALOADER.CACHE and not self.model.learns_from_stem():
            raise ModelError(
                f"MODEL.METHOD {cfg.MODEL.METHOD} does not learn from what is kept of an image: set DATALOADER.CACHE "
                "False"
            )
        self.optimizers = optimizers(self.model.groups())
        self.schedule = schedule(cfg.SOLVER.SCHEDULE, Settings(
            highest=cfg.SOLVER.BASE_LR, warmup=cfg.SOLVER.WARMUP_EPOCHS, start=cfg.SOLVER.WARMUP_LR,
            floor=cfg.SOLVER.MIN_LR, length=cfg.SOLVER.SCHEDULER_MAX_EPOCHS or cfg.SOLVER.MAX_EPOCHS,
        ))  # fmt: skip
        self.ema = None
        if cfg.MODEL.USE_EMA:
            state, copied = self.model.trained_state(), self.model.not_averaged
            steps = len(self.loader) * cfg.SOLVER.MAX_EPOCHS
            decay = decay_over(steps) if cfg.MODEL.EMA_DECAY == AUTO else cfg.MODEL.EMA_DECAY
            self.ema = Ema(state, decay=decay, copied=copied)
        self.autocast = autocast_dtype(cfg.SOLVER.AMP, self.device)
        self.test_autocast = autocast_dtype(cfg.TEST.AMP, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.autocast == torch.float16)
        self.config, self.method = cfg.dump(), cfg.MODEL.METHOD
        self.epoch, self.batch, self.step = 1, 0, 0  # the epoch under way and its batches done
        self.best, self.best_epoch = -1.0, 0  # highest validation mAP of GZSL
        self.shortfall = ""  # where what will be tested is below zero-shot CLIP

    def train(self, cfg: CfgNode, folder: Path, log: RunLog | NoLog, asked: Requests) -> None:
        """Trains what is left, evaluating and saving as it goes, and when it is asked to."""
        trainer = Trainer(
            model=self.model, names=self.vocabulary.seen, optimizers=self.optimizers,
            rates_per_step=cfg.SOLVER.LR_PERIOD == "step",
            set_rates=partial(set_rates, self.optimizers, self.schedule),
            ema=self.ema, scaler=self.scaler, device=self.device, autocast=self.autocast,
            log=partial(log.write, "train"), log_period=cfg.SOLVER.LOG_PERIOD,
            skip_nonfinite=cfg.SOLVER.NONFINITE == "skip", step=self.step,
            augment=self.loader.dataset.augment, cached=cfg.DATALOADER.CACHE,
        )  # fmt: skip

        def after_step(done: int) -> None:
            self.batch, self.step = done, trainer.step
            if cfg.SOLVER.CHECKPOINT_PERIOD and self.step % cfg.SOLVER.CHECKPOINT_PERIOD == 0:
                trainer.settle()
                self.save(folder / CHECKPOINT)
            self.save_where_asked(folder, asked, trainer.settle)

        while not self.is_done(cfg):
            due = self.epoch % cfg.SOLVER.EVAL_PERIOD == 0 or self.epoch == cfg.SOLVER.MAX_EPOCHS
            with asked.deferred():
                if self.batch == 0 and self.ema is not None and cfg.MODEL.EMA_RESET:
                    self.ema.reset()
                self.batches.set_position(self.epoch, self.batch)
                if len(self.batches) > 0:  # not where the run was killed while it evaluated
                    with stored_in(self.autocast, self.model):
                        trainer.epoch(self.epoch, self.batches, self.batch, after_step)
                    if due:
                        self.save(folder / CHECKPOINT)
                    self.save_where_asked(folder, asked)
            if due:
                self.evaluate(cfg, folder, log)
            with asked.deferred():
                self.epoch, self.batch = self.epoch + 1, 0
                self.save(folder / CHECKPOINT)
        if self.epoch <= cfg.SOLVER.MAX_EPOCHS:
            print(f"ended early: validation mAP has not risen since epoch {self.best_epoch} (SOLVER.PATIENCE)")
        self.calibrate(cfg, folder, log)
        wait_for_all()
        if self.shortfall:
            print(f"{self.shortfall}; {WHAT_TO_TRY}")

    def keep_images(self, cfg: CfgNode) -> None:
        """Computes what no training changes of the training images, where that is asked for, and keeps it."""
        if not cfg.DATALOADER.CACHE:
            return
        self.model.eval()
        with stored_in(self.autocast, self.model):
            computed = computed_once(
                self.model.training_stem, self.loader.once(), device=self.device, autocast=self.autocast
            )
        self.batches = CachedLoader(self.loader, computed, pinned=self.device.type == "cuda")

    def calibrate(self, cfg: CfgNode, folder: Path, log: RunLog | NoLog) -> None:
        """Fits probabilities on the validation images, if there are any, and adds them to the checkpoint."""
        if not is_first():
            return
        path = folder / (BEST if (folder / BEST).is_file() else CHECKPOINT)
        state = load_state(path)
        if self.split != "val" or state.calibration is not None or not isinstance(self.model, RAM):
            return
        try:
            calibration = calibrated(parts_of(state), cfg, self.splits, device=self.device)
        except (CalibrationError, ModelError) as error:
            print(f"no probabilities: {error}")
            return
        state = state._replace(calibration=calibration.state())
        save_state(path, state)
        if log.shows_pictures and self.splits.val is not None:
            from tagging.panel import panel  # matplotlib takes a second to import

            tagger = Tagger(parts_of(state), device=self.device)
            log.picture("val/labels and where", panel(tagger, self.splits.val.images, image_folder(cfg)))
        print(f"probabilities calibrated on validation images: {calibration.summary()}")

    def save_where_asked(self, folder: Path, asked: Requests, before: Callable[[], None] = lambda: None) -> None:
        """Saves, and ends, as far as signals to any process want it; `before` is called before that."""
        save, end = asked.agreed()
        if save or end:
            before()
            self.save(folder / CHECKPOINT)
            wait_for_all()  # a process that ends sooner would take along the one that writes
        if end:
            asked.obey()

    def is_done(self, cfg: CfgNode) -> bool:
        """Whether nothing is left to train."""
        return self.epoch > cfg.SOLVER.MAX_EPOCHS or self.has_waited(cfg)

    def has_waited(self, cfg: CfgNode) -> bool:
        """Whether the validation images have seen no progress for as long as SOLVER.PATIENCE allows."""
        evaluated = (self.epoch - 1) // cfg.SOLVER.EVAL_PERIOD * cfg.SOLVER.EVAL_PERIOD
        return 0 < cfg.SOLVER.PATIENCE <= evaluated - self.best_epoch and self.best_epoch > 0

    def evaluate(self, cfg: CfgNode, folder: Path, log: RunLog | NoLog) -> None:
        """Measures all methods, writes and logs the results, and keeps the best checkpoint if that is asked for."""
        self.model.eval()
        rows = rows_of(self.zero_shot, self.model, ema=self.ema)
        with stored_in(self.test_autocast, self.zero_shot, self.model):
            results = evaluate(rows, self.protocols, device=self.device, autocast=self.test_autocast)
        print(f"\n{cfg.DATASETS.NAMES}, {self.split} images, after epoch {self.epoch}\n{format_table(results)}")
        about = provenance(
            config=flat(cfg), checkpoint={"run": folder.name, "epoch": self.epoch, "step": self.step},
            lists=identities(self.protocols), seen=self.vocabulary.seen, unseen=self.vocabulary.unseen,
        )  # fmt: skip
        if is_first():
            write_results(folder / self.split / f"epoch-{self.epoch}", results, about)
            log.results(self.split, results, epoch=self.epoch, step=self.step)
        reached = find(results, rows[-1].name, self.protocols[-1].name)["mAP"]
        risen = self.split == "val" and reached > self.best
        if risen:
            self.best, self.best_epoch = reached, self.epoch
        if risen and cfg.SOLVER.SELECT == "best":
            self.save(folder / BEST)
        if risen or cfg.SOLVER.SELECT == "last" or self.split == "test":
            self.shortfall = behind(results, rows[-1].name, rows[0].name)

    def save(self, path: Path) -> None:
        """Writes what was trained and where the run stands; no frozen weights. All processes hold the same."""
        if not is_first():
            return
        state = TrainingState(
            method=self.method,
            model=self.model.trained_state(),
            ema=None if self.ema is None else self.ema.state_dict(),
            optimizers=self.optimizers.state_dict(),
            scaler=self.scaler.state_dict(),
            random=random_state(),
            epoch=self.epoch,
            batch=self.batch,
            step=self.step,
            best=self.best,
            best_epoch=self.best_epoch,
            config=self.config,
            seen=list(self.vocabulary.seen),
            unseen=list(self.vocabulary.unseen),
            texts=self.texts,
            images=self.images,
            clip=self.clip,
        )
        save_state(path, state)

    def begin_with(self, place: Path) -> None:
        """Takes over what another training trained: a run folder's best or last checkpoint, or a checkpoint.

        Raises:
            CheckpointError: if it belongs to another CLIP or its parts are not those of this model.
        """
        files = [place / BEST, place / CHECKPOINT] if place.is_dir() else [place]
        path = next((file for file in files if file.is_file()), files[-1])
        state = from_first(lambda: load_state(path))
        if state.clip != self.clip:
            raise CheckpointError(f"SOLVER.INIT {path} was trained with the CLIP {state.clip}, here it is {self.clip}")
        try:
            self.model.begin_with(state.model)
        except ModelError as error:
            raise CheckpointError(f"SOLVER.INIT {path} is of another model: {error}") from error
        if self.ema is not None:
            self.ema.reset()

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint.

        Raises:
            CheckpointError: if it belongs to another configuration, vocabulary or CLIP.
        """
        state = from_first(lambda: load_state(path))
        if state.clip != self.clip:
            raise CheckpointError(f"{path} was trained with the CLIP {state.clip}, here it is {self.clip}")
        if differing := set(state.seen) ^ set(self.vocabulary.seen):
            raise CheckpointError(f"{path} was trained with other seen labels: {min(differing)!r} is on one side only")
        if state.texts != self.texts:
            raise CheckpointError(f"{path} was trained with other texts of labels: DATASETS.LABELS has changed")
        if state.images != self.images:
            raise CheckpointError(f"{path} was trained on other images or labels: the training list has changed")
        _require_same_config(state.config, self.config, path)
        self.model.load_trained_state(state.model)
        try:
            self.optimizers.load_state_dict(state.optimizers)
            self.scaler.load_state_dict(state.scaler)
            set_random_state(state.random)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise CheckpointError(f"{path} holds no optimisers or random state to go on with: {why}") from error
        if self.ema is not None and state.ema is not None:
            self.ema.load_state_dict(state.ema)
        self.epoch, self.batch, self.step = state.epoch, state.batch, state.step
        self.best, self.best_epoch = state.best, state.best_epoch


def _require_same_config(theirs: str, ours: str, path: Path) -> None:
    left, right = (flat(restore_config(text)) for text in (theirs, ours))
    for key in sorted(left):
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_ON_RESUME)
        free = free or all(values[key] in ALIKE.get(key, ()) for values in (left, right))
        if not free and left[key] != right[key]:
            raise CheckpointError(f"{path} was trained with {key} {left[key]}, here it is {right[key]}")


def resumable(output_dir: str, resume: str) -> Path | None:
    """The run folder that --resume asks for; None where a new run begins.

    "auto" is the newest run, or a new one where that was ended before there was anything to go on with.

    Raises:
        CheckpointError: if the named folder has no checkpoint.
        ClaimError: if another process is at work in it.
    """
    folder = newest_run(output_dir, CONFIG) if resume == "auto" else Path(resume)
    if folder is None or (folder / CHECKPOINT).is_file():
        return folder
    if resume != "auto":
        raise CheckpointError(f"{folder} holds no {CHECKPOINT} to resume from")
    with claimed(folder):  # else it is under way
        print(f"{folder} ended before its first checkpoint: a new run begins")
    return None


def opened_log(cfg: CfgNode, folder: Path, resumed: tuple[int, int] | None) -> AbstractContextManager[RunLog | NoLog]:
    """The log of the run, which the first process writes."""
    if not is_first():
        return nullcontext(NoLog())
    return RunLog(
        folder, resumed=resumed, wandb_project=cfg.WANDB_PROJ if cfg.WANDB else None, wandb_config=flat(cfg),
        wandb_group=cfg.DATASETS.NAMES, wandb_job=cfg.MODEL.METHOD,
        wandb_tags=(cfg.DATASETS.NAMES, cfg.MODEL.METHOD, f"seed-{cfg.SOLVER.SEED}"),
    )  # fmt: skip


def train(cfg: CfgNode, resume: str | None) -> None:
    """One run from its first or its interrupted step to its last."""
    with requests() as asked:
        run = Run(cfg)
        print(run.splits)
        found = from_first(lambda: resumable(cfg.OUTPUT_DIR, resume) if resume else None)
        if found is None and cfg.SOLVER.INIT:
            run.begin_with(Path(cfg.SOLVER.INIT))
        if found is None:
            run.keep_images(cfg)  # what is too much for the memory is refused before there is a run
        folder = from_first(lambda: found or new_run(cfg.OUTPUT_DIR))
        with claimed(folder) if is_first() else nullcontext():
            if found is not None:
                run.restore(folder / CHECKPOINT)
            elif is_first():
                with atomic_write(folder / CONFIG, "w") as file:
                    file.write(run.config)
                write_environment(folder)
            if run.is_done(cfg):
                print(f"{folder} is done: {run.epoch - 1} epochs are trained")
            elif found is not None:
                run.keep_images(cfg)
            with opened_log(cfg, folder, None if found is None else (run.epoch, run.step)) as log:
                run.train(cfg, folder, log, asked)
    print(f"\nrun: {folder}")


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    cli.add_configuration(parser)
    parser.add_argument("--resume", nargs="?", const="auto", metavar="auto|RUN", help="go on with a killed run")
    cli.add_overrides(parser, "SOLVER.SEED 1")
    args = cli.read(parser)
    with joined():
        train(load_config(args.config_file, args.opts), args.resume)


if __name__ == "__main__":
    sys.exit(cli.run(main))
