"""The data loader: photographs from files to batches, in this process and in as many workers as there are cores.

Beside it stands what no loader can do without, decoding the files and shrinking the pictures, in this process.
"""

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from configs import load_config
from datasets.build import build_splits, build_test, build_train
from tools.benchmarking.measuring import Measurement, Setting, in_turn
from tools.benchmarking.models import ROOT

__all__ = ["measure", "write_photographs"]

PHOTOGRAPHS = {True: 32, False: 256}  # quick or not
SIZE = (640, 480)  # width and height, as of MS-COCO
SPEED = "speed"
RECIPE = "coco.yml"


def measure(setting: Setting) -> Iterator[Measurement]:
    """Images per second, of a pass through training images with all augmentation and one through test images."""
    count = PHOTOGRAPHS[setting.quick]
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), count)
        runs = {"decoding and shrinking": partial(_shrink, paths)}
        for workers in (0,) if setting.quick else (0, os.cpu_count() or 1):  # which take seconds to start
            where = f"{workers} workers" if workers else "this process"
            for kind, loader in _loaders(folder, workers).items():
                runs[f"{kind} images, {where}"] = partial(_drain, loader)
        for name, took in in_turn(runs, setting).items():
            yield Measurement(f"loader, {name}", SPEED, "images/s", [count / one.wall for one in took])
            if "workers" not in name:  # whose processor time is their own
                values = [count / one.processor for one in took]
                yield Measurement(f"loader, {name}", f"{SPEED} by processor time", "images/s", values)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of smooth random colours with noise, about 60 kB each, and `list.csv`, which gives each a label."""
    draw = np.random.default_rng(0)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for path in paths:
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + draw.normal(0, 6, smooth.shape[:2])[..., None]
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    with (folder / "list.csv").open("w", newline="") as file:
        lines = [("image", "labels"), *((path.name, f"label {number % 48}") for number, path in enumerate(paths))]
        csv.writer(file).writerows(lines)
    return paths


def _loaders(folder: str, workers: int) -> dict[str, Iterable]:
    """Of training and of test images."""
    own = {
        "ROOT_DIR": folder, "TRAIN": "list.csv", "TEST": "list.csv", "TEST_ZSL": "", "CHOOSE": "none",
    }  # fmt: skip
    overrides = [word for key, value in own.items() for word in (f"DATASETS.{key}", value)]
    overrides += ["DATALOADER.NUM_WORKERS", str(workers), "TEST.IMS_PER_BATCH", "32"]
    cfg = load_config(ROOT / "configs" / RECIPE, overrides)
    splits = build_splits(cfg)
    return {
        "training": build_train(cfg, splits).loader,
        "test": build_test(cfg, "test", splits).protocols["GZSL"].loader,
    }


def _drain(loader: Iterable) -> None:
    for _ in loader:
        pass


def _shrink(paths: Sequence[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
