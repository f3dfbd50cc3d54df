"""Fixtures of the tests that run whole scripts: the scripts as modules, and a benchmark of a few small images."""

import copy
import functools
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from clip import load
from clip.load import load_clip
from clip.text import TextEncoder
from configs import load_config
from engine import cli
from engine.checkpoint import random_state, set_random_state
from forked import Forked
from tools.check_parity import build_clip, read

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
SEEN = ("cat", "cup", "dog", "tree")
UNSEEN = ("car", "kite", "sun")
BUILD = load._build
torch.set_num_threads(1)  # a second one costs more than it gives for tiny tensors, and does not survive a fork


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def train_script() -> ModuleType:
    return _module("train")


@pytest.fixture(scope="session")
def test_script() -> ModuleType:
    return _module("test")


@functools.cache
def _drawn(sizes: str, quick_gelu: bool, seed: int) -> nn.Module:
    return BUILD(json.loads(sizes), quick_gelu, seed)


@pytest.fixture(autouse=True)
def towers_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random towers are drawn once for a seed; whoever builds them gets a copy. Tests of clip/ draw their own."""
    monkeypatch.setattr(load, "_build", lambda config, *how: copy.deepcopy(_drawn(json.dumps(config), *how)))


def _split(folder: Path, name: str, classes: tuple[str, ...], size: int, generator: np.random.Generator) -> None:
    """A list in the authors' format and its images, every second one a JPEG."""
    entries = []
    for i in range(size):
        file = f"images/{name}{i}.{('png', 'jpg')[i % 2]}"
        Image.fromarray(generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(folder / file)
        chosen = [classes[i % len(classes)], classes[(i * i + 1) % len(classes)], classes[i % len(classes)]]
        entries.append([f"/elsewhere/{file}", chosen])
    (folder / f"{name}.json").write_text(json.dumps({"images": entries, "classes": list(classes)}))


def _benchmark(folder: Path) -> SimpleNamespace:
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, classes, size in (("train", SEEN, 6), ("val", SEEN + UNSEEN, 7), ("test", SEEN + UNSEEN, 7)):
        _split(data, name, classes, size, generator)
    overrides = [
        "OUTPUT_DIR", str(folder / "runs"), "DATASETS.NAMES", "few", "DATASETS.ROOT_DIR", str(data),
        "DATASETS.TRAIN", "train.json", "DATASETS.VAL", "val.json", "DATASETS.TEST", "test.json",
        "SOLVER.IMS_PER_BATCH", "2", "SOLVER.LOG_PERIOD", "2", "SOLVER.EVAL_PERIOD", "1",
    ]  # fmt: skip

    def config(*more: str) -> CfgNode:
        return load_config(ROOT / "configs" / "tiny.yml", [*overrides, *more])

    return SimpleNamespace(data=data, runs=folder / "runs", overrides=overrides, config=config)


@pytest.fixture
def benchmark(tmp_path: Path) -> SimpleNamespace:
    """A data set of four seen and three unseen labels and six training images, three batches.

    `config(KEY, VALUE, ...)` is configs/tiny.yml for it, with two epochs; runs go to `runs`.
    """
    return _benchmark(tmp_path)


@pytest.fixture(scope="session")
def finished(train_script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A benchmark as above with the folder `run` of a finished training, not to be written to."""
    made = _benchmark(tmp_path_factory.mktemp("finished"))
    train_script.train(made.config(), None)
    (made.run,) = made.runs.iterdir()
    return made


@pytest.fixture
def trained(finished: SimpleNamespace, tmp_path: Path) -> SimpleNamespace:
    """A copy of it to write to."""
    runs = tmp_path / "copied"
    run = Path(shutil.copytree(finished.run, runs / finished.run.name))

    def config(*more: str) -> CfgNode:
        return finished.config("OUTPUT_DIR", str(runs), *more)

    overrides = [*finished.overrides, "OUTPUT_DIR", str(runs)]
    return SimpleNamespace(data=finished.data, runs=runs, run=run, overrides=overrides, config=config)


@pytest.fixture(scope="session")
def released_text() -> TextEncoder:
    """The text tower of the small CLIP that the releases of RAM, CoOp and DualCoOp were run on."""
    file = read(DATA / "release_open.npz")
    with np.load(DATA / "release_coop.npz") as coop:  # knows more tokens
        file |= {f"clip/token_embedding.{part}": coop[f"param/token_embedding.{part}"] for part in ("ids", "rows")}
    tokenize = load_clip("ViT-tiny-8", "random").tokenize
    return TextEncoder(build_clip(file), tokenize, template="a photo of a {}.", prompted=())


@pytest.fixture(scope="session")
def released_labels() -> list[str]:
    """The ten labels that they were run on."""
    file = read(DATA / "release_open.npz")
    return [*file["classes.seen"].tolist(), *file["classes.unseen"].tolist()]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a script on a benchmark as from the command line; gives the exit code."""

    def run(script: ModuleType, on: SimpleNamespace, *arguments: str, options: Sequence[str] = ()) -> int:
        line = ["x.py", "--config_file", str(ROOT / "configs" / "tiny.yml"), *options]
        monkeypatch.setattr(sys, "argv", [*line, *on.overrides, *arguments])
        return cli.run(script.main)

    return run


@pytest.fixture
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Forked]]:
    """Starts scripts in forks of this process; the test does not leave any behind."""
    started: list[Forked] = []

    def start(script: Path, *arguments: object, **how: Any) -> Forked:
        started.append(Forked(tmp_path_factory.mktemp("forked"), script, *arguments, **how))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def own_random_state() -> Iterator[None]:
    """The random state is as before when the test has ended."""
    state = random_state()
    yield
    set_random_state(state)
