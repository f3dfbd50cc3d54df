"""What is computed of images once, and the batches that are made of it."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datasets.dataset import MultiLabelDataset
from datasets.loader import Share, train_loader
from datasets.records import DataError, Records
from datasets.transforms import test_transform as transform_of
from engine import memory
from engine.cached import CachedLoader, CacheError, computed_once

CPU = torch.device("cpu")
IMAGES = 11


class Stem(NamedTuple):
    colours: Tensor
    nothing: None
    grid: tuple[int, int]
    halves: Tensor


def stem(images):
    return Stem(images.mean((2, 3)), None, (2, 1), images.unflatten(2, (2, 4)).mean((1, 3, 4)).to(torch.bfloat16))


@pytest.fixture
def dataset(tmp_path):
    def dataset(broken="", cut=""):
        rng = np.random.default_rng(0)
        names = [f"{i}.bmp" for i in range(IMAGES)]
        for name in names:
            Image.fromarray(rng.integers(0, 256, (9, 10, 3), np.uint8)).save(tmp_path / name)
        if broken:
            (tmp_path / broken).write_bytes(b"no image")
        if cut:
            (tmp_path / cut).write_bytes((tmp_path / cut).read_bytes()[:200])
        labels = tuple(("ab"[i % 2],) for i in range(IMAGES))
        unknown = tuple(("a",) if i % 3 else () for i in range(IMAGES))
        records = Records(tuple(names), labels, ("a", "b"), "list.json", unknown=unknown)
        transform = transform_of(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
        return MultiLabelDataset(records, "ab", transform, str(tmp_path), seed=5, read_truncated=True)

    return dataset


def computed(loader):
    return computed_once(stem, loader.once(), device=CPU, autocast=None, progress_bar=False)


def assert_same(cached_batches, read_batches):
    cached_batches, read_batches = list(cached_batches), list(read_batches)
    assert len(cached_batches) == len(read_batches) > 0
    for ours, theirs in zip(cached_batches, read_batches, strict=True):
        expected = stem(theirs.images)
        assert (ours.paths, ours.images.nothing, ours.images.grid) == (theirs.paths, None, (2, 1))
        assert torch.equal(ours.images.colours, expected.colours)
        assert torch.equal(ours.images.halves, expected.halves)
        assert torch.equal(ours.targets, theirs.targets)
        assert torch.equal(ours.known, theirs.known)


@pytest.mark.parametrize("share", [Share(0, 1), Share(1, 2)])
@pytest.mark.parametrize("first", [0, 1])
def test_batches_are_those_of_the_loader_in_every_epoch_from_every_batch_on(dataset, first, share):
    loader = train_loader(dataset(), 4, 0, seed=1, reshuffle=True, share=share)
    batches = CachedLoader(loader, computed(loader))
    for epoch in (1, 2):
        batches.set_position(epoch, first)
        assert len(batches) == 2 - first
        assert_same(batches, loader)


def test_where_all_labels_are_known_batches_say_so(dataset):
    data = dataset()
    data.known = None
    loader = train_loader(data, 4, 0, seed=1, reshuffle=True)
    assert next(iter(CachedLoader(loader, computed(loader)))).known is None


def test_precision_is_that_of_the_training(dataset):
    loader, weight, found = train_loader(dataset(), 4, 0, seed=1, reshuffle=True), torch.ones(8, 2), []

    def multiplied(images):
        found.append(torch.is_grad_enabled())
        return images[:, 0] @ weight

    kept = computed_once(multiplied, loader.once(), device=CPU, autocast=torch.bfloat16, progress_bar=False)
    assert (kept.shape, kept.dtype, set(found)) == ((IMAGES, 8, 2), torch.bfloat16, {False})


def test_a_broken_image_stops_before_the_first_step_with_one_line_that_names_it(dataset):
    with pytest.raises(DataError, match=r"3\.bmp"):
        computed(train_loader(dataset(broken="3.bmp"), 4, 0, seed=1, reshuffle=True))


def test_images_that_are_cut_short_are_named_once_and_used(dataset):
    loader = train_loader(dataset(cut="3.bmp"), 4, 0, seed=1, reshuffle=True)
    with pytest.warns(UserWarning, match=r"1 image files that are cut short.*3\.bmp"):
        batches = CachedLoader(loader, computed(loader))
    assert_same(batches, loader)


def test_more_than_the_memory_is_refused_after_the_first_batch_in_one_line(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:  2000000 kB\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    loader, calls = train_loader(dataset(), 4, 0, seed=1, reshuffle=True), []

    def much(images):
        calls.append(len(images))
        return torch.zeros(1).expand(len(images), 50_000_000)

    said = "DATALOADER.CACHE would keep 4.4 GB of 11 images, and 2.0 GB of memory are available: set it False"
    with pytest.raises(CacheError, match=f"^{re.escape(said)}[^\n]+$"):
        computed_once(much, loader.once(), device=CPU, autocast=None, progress_bar=False)
    assert calls == [4]


def test_where_the_system_does_not_tell_its_memory_nothing_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(memory, "MEMORY", Path("not there"))
    assert len(computed(train_loader(dataset(), 4, 0, seed=1, reshuffle=True)).colours) == IMAGES
