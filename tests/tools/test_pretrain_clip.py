"""Pre-training of the embedded benchmark's CLIP: objective, data, and a run of a few steps."""

import argparse
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from sklearn.metrics import average_precision_score

from clip.load import load_clip
from datasets.shapes import LABELS, scene
from tools import pretrain_clip

WEIGHTS = Path(__file__).parents[2] / "clip" / "pretrained" / "shapes.safetensors"


@pytest.fixture(scope="module")
def model():
    return pretrain_clip.build(0).eval()


def arguments(out, steps, resume=False):
    return argparse.Namespace(out=out, steps=steps, batch=4, lr=1e-3, seed=0, every=2, resume=resume)


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_features_are_those_of_open_clip(model):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = open_clip.tokenize(["a red circle", "a photo of a blue star."])
    with torch.no_grad():
        torch.testing.assert_close(
            pretrain_clip.encode_images(model, images), model.encode_image(images, normalize=True), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            pretrain_clip.encode_texts(model, tokens), model.encode_text(tokens, normalize=True), rtol=1e-4, atol=1e-5
        )


def test_loss_is_the_mean_cross_entropy_of_both_directions():
    logits = np.random.default_rng(0).normal(size=(3, 4))
    named = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]])  # label 1 and 3 are named nowhere
    rows, columns = [], []
    for i in range(3):
        log_p = logits[i] - np.log(np.exp(logits[i]).sum())
        rows.append(-np.mean([log_p[j] for j in range(4) if named[i, j]]))
    for j in (0, 2):
        log_p = logits[:, j] - np.log(np.exp(logits[:, j]).sum())
        columns.append(-np.mean([log_p[i] for i in range(3) if named[i, j]]))
    found = pretrain_clip.contrastive_loss(torch.from_numpy(logits), torch.from_numpy(named).double())
    assert found.item() == pytest.approx((np.mean(rows) + np.mean(columns)) / 2)


def test_captions_name_one_or_two_objects_of_the_scene():
    _, named = pretrain_clip.Captioned(steps=10, batch=64, seed=0)[9]
    assert set(named.sum(1).int().tolist()) == {1, 2}


def test_scenes_grow_from_one_object_to_five():
    def most(step):
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            original = pretrain_clip.scene
            patch.setattr(pretrain_clip, "scene", lambda s, i, n: (asked.append(n), original(s, i, n))[1])
            pretrain_clip.Captioned(steps=100, batch=2, seed=0)[step]
        return set(asked)

    assert [most(step) for step in (0, 20, 99)] == [{(1, 1)}, {(1, 2)}, {(2, 5)}]


def test_the_rate_warms_up_and_ends_near_zero():
    rates = [pretrain_clip.learning_rate(step, 10_000, 1e-3) for step in (0, 499, 5000, 9999)]
    assert rates == pytest.approx([2e-6, 9.94e-4, 5e-4, 0], rel=1e-2, abs=1e-9)


def test_the_zero_shot_map_is_that_of_scikit_learn(model, monkeypatch):
    monkeypatch.setattr(pretrain_clip, "VAL_SCENES", 150)
    scenes = [scene("val", i, (2, 5)) for i in range(150)]
    images = pretrain_clip.normalise([np.asarray(s.image) for s in scenes])
    tokens = open_clip.tokenize([pretrain_clip.TEMPLATES[0].format(label) for label in LABELS])
    with torch.no_grad():
        scores = pretrain_clip.encode_images(model, images) @ pretrain_clip.encode_texts(model, tokens).T
    targets = np.array([[label in s.labels for label in LABELS] for s in scenes])
    expected = np.mean([average_precision_score(targets[:, j], scores[:, j].numpy()) for j in range(len(LABELS))])
    assert pretrain_clip.zero_shot(model)["val_map"] == pytest.approx(100 * expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_ends_like_an_uninterrupted_one_and_its_weights_load(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain_clip, "VAL_SCENES", 40)
    monkeypatch.setattr(pretrain_clip, "zero_shot", lambda _: {"labels": len(LABELS)})
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    pretrain_clip.train(arguments(whole, 4))

    original, calls = torch.save, []

    def stops(*args):
        original(*args)
        calls.append(args[1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", stops)
        with pytest.raises(KeyboardInterrupt):
            pretrain_clip.train(arguments(parts, 4))
    calls[0].replace(parts.with_suffix(".ckpt"))
    pretrain_clip.train(arguments(parts, 4, resume=True))

    assert [json.loads(line)["step"] for line in whole.with_suffix(".log.jsonl").read_text().splitlines()] == [2, 4]
    assert load_clip(pretrain_clip.ARCHITECTURE, str(parts)).identity == (
        load_clip(pretrain_clip.ARCHITECTURE, str(whole)).identity
    )


def test_the_committed_weights_are_those_of_a_million_scenes():
    from safetensors import safe_open

    with safe_open(WEIGHTS, "pt") as file:
        facts = file.metadata()
    last = json.loads(WEIGHTS.with_suffix(".log.jsonl").read_text().splitlines()[-1])
    assert int(facts["images"]) == last["images"] == 1_000_000
    assert facts["architecture"] == pretrain_clip.ARCHITECTURE
