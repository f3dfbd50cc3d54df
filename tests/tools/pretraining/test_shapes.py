"""Pre-training on coloured shapes."""

import numpy as np
import open_clip
import pytest
import torch
from sklearn.metrics import average_precision_score

from datasets.shapes import LABELS, scene
from tools.pretraining import shapes
from tools.pretraining.shapes import Shapes
from tools.pretraining.towers import build, encode_images, encode_texts, normalise


def test_captions_name_one_or_two_objects_of_the_scene():
    shown = Shapes().step(9, 10, 64, 0)
    assert set(shown.named.sum(1).int().tolist()) == {1, 2}
    assert shown.asked.tolist() == list(range(65))


def test_scenes_grow_from_one_object_to_five():
    def most(step):
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            original = shapes.scene
            patch.setattr(shapes, "scene", lambda s, i, n: (asked.append(n), original(s, i, n))[1])
            Shapes().step(step, 100, 2, 0)
        return set(asked)

    assert [most(step) for step in (0, 20, 99)] == [{(1, 1)}, {(1, 2)}, {(2, 5)}]


def test_the_zero_shot_map_is_that_of_scikit_learn(monkeypatch):
    model = build("ViT-S-8-shapes", 0).eval()
    monkeypatch.setattr(shapes, "VAL_SCENES", 150)
    scenes = [scene("val", i, (2, 5)) for i in range(150)]
    images = normalise([np.asarray(s.image) for s in scenes])
    tokens = open_clip.tokenize([Shapes.templates[0].format(label) for label in LABELS])
    with torch.no_grad():
        scores = encode_images(model, images) @ encode_texts(model, tokens).T
    targets = np.array([[label in s.labels for label in LABELS] for s in scenes])
    expected = np.mean([average_precision_score(targets[:, j], scores[:, j].numpy()) for j in range(len(LABELS))])
    assert Shapes().zero_shot(model)["val_map"] == pytest.approx(100 * expected, rel=1e-3)
