"""RAM with windows: the regions beside plain loops, and through training, test and tagger."""

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from configs import load_config
from engine.run import newest_run
from model import METHODS, WindowedRAM, build_method, load_towers
from tagging import Tagger
from tagging.evidence import RegionEvidence
from tagging.maps import PLANS, views

NAMES = ("cat", "dog", "kite")
GRIDS = ((4, 4), (3, 5), (1, 4), (4, 1), (1, 1))
WINDOWED = ("MODEL.METHOD", "ram-windows")


@pytest.fixture(scope="module")
def ram():
    torch.manual_seed(3)
    cfg = load_config("configs/tiny.yml", ["MODEL.TEMPERATURE", "auto", *WINDOWED])
    return build_method(cfg, load_towers(cfg), seen=3).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def windows_of(grid):
    """The patches of each window, row by row."""
    rows, columns = (range(max(1, side - 1)) for side in grid)
    for top, left in itertools.product(rows, columns):
        yield [
            r * grid[1] + c
            for r, c in itertools.product(range(top, top + 2), range(left, left + 2))
            if r < grid[0] and c < grid[1]
        ]


@pytest.mark.parametrize("grid", GRIDS)
def test_behind_the_patches_stand_the_means_of_neighbours(ram, grid):
    patches = torch.randn(2, grid[0] * grid[1], 5, generator=torch.Generator().manual_seed(1))
    unit = patches.double().numpy() / np.linalg.norm(patches.double().numpy(), axis=-1, keepdims=True)
    means = np.stack([unit[:, which].mean(1) for which in windows_of(grid)], 1)
    found = ram.matched(patches, grid)
    np.testing.assert_allclose(found.numpy(), np.concatenate([unit, means], 1), atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_what_a_window_has_is_shared_by_its_patches(ram, grid):
    count, members = grid[0] * grid[1], list(windows_of(grid))
    shares = torch.rand(2, count + len(members), 3, generator=torch.Generator().manual_seed(2))
    expected = shares[:, :count].clone()
    for place, which in enumerate(members):
        expected[:, which] += shares[:, count + place, None] / len(which)
    found = ram.on_grid(shares, grid)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(1), shares.sum(1))


def test_the_plan_is_one_over_patches_and_windows(ram, images):
    found = ram(images, ram.encode_labels(NAMES))
    assert found.similarity.shape == (2, 16 + 9, 3)
    torch.testing.assert_close(found.matching.plan.sum(1), torch.full((2, 3), 1 / 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.similarity[:, :16], plain_similarity(ram, images))


def plain_similarity(ram, images):
    """What RAM itself makes of the same weights."""
    labels = ram.encode_labels(NAMES)
    features = ram.trunk.finish(ram.trunk.stem(images), ram.visual_prompts())
    regions = ram.trunk.project(ram.adapter(features, labels.features))
    return F.normalize(regions, dim=-1) @ F.normalize(labels.features, dim=-1).T


def test_windows_train_nothing_that_ram_does_not(ram):
    cfg = load_config("configs/tiny.yml", ["MODEL.TEMPERATURE", "auto"])
    plain = METHODS["ram"](cfg, load_towers(cfg), seen=3)
    assert {k: v.shape for k, v in plain.trained_state().items()} == {
        k: v.shape for k, v in ram.trained_state().items()
    }
    assert isinstance(ram, WindowedRAM)
    assert not isinstance(plain, WindowedRAM)


def test_the_evidence_of_a_seen_label_is_its_column_of_the_plan(ram, images):
    evidence = RegionEvidence(ram, NAMES)
    own = ram(images, ram.encode_labels(NAMES))
    found = evidence.ask(evidence.gallery(images), evidence.labels(NAMES))
    expected = own.matching.plan / own.matching.plan.sum(1, keepdim=True)
    torch.testing.assert_close(found.weights, expected, rtol=5e-3, atol=1e-5, check_dtype=False)


def test_maps_are_of_patches(ram, images):
    found = views(ram, images, ram.encode_labels(NAMES))
    assert found.similarity["SAA + TSS"].shape == (2, 16, 3)
    assert found.mu.shape == (2, 16)
    torch.testing.assert_close(found.mu.sum(1), torch.ones(2))
    for name in PLANS:
        torch.testing.assert_close(found.plans[name].sum(1), torch.ones(2, 3), rtol=0, atol=1e-4)


def test_it_is_trained_tested_and_looked_at(benchmark, train_script, test_script):
    cfg = benchmark.config(*WINDOWED, "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    test_script.test(cfg)
    rows = json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]
    assert list(rows) == ["zero-shot CLIP", "RAM with windows", "RAM with windows (EMA)"]
    tagger = Tagger.load(run)
    gallery = tagger.index(torch.rand(3, 64, 64))
    weights = tagger.evidence.ask(gallery, tagger.labels(["red circle", "blue star"])).weights
    assert tagger.evidence.on_grid(weights, gallery.grid).shape == (1, gallery.grid[0] * gallery.grid[1], 2)
