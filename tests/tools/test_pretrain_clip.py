"""Pre-training of the embedded worlds' CLIPs: the schedule, and a run of a few steps."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from clip.load import load_clip
from tools import pretrain_clip
from tools.pretraining import shapes

PRETRAINED = Path(__file__).parents[2] / "clip" / "pretrained"


def arguments(out, steps, resume=False):
    return argparse.Namespace(world="shapes", out=out, steps=steps, batch=4, lr=None, seed=0, every=2, resume=resume)


def test_the_rate_warms_up_and_ends_near_zero():
    rates = [pretrain_clip.learning_rate(step, 10_000, 1e-3, 500) for step in (0, 499, 5000, 9999)]
    assert rates == pytest.approx([2e-6, 9.94e-4, 5e-4, 0], rel=1e-2, abs=1e-9)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_resumed_run_ends_like_an_uninterrupted_one_and_its_weights_load(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes.Shapes, "zero_shot", lambda *_: {"labels": 65})
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
    assert load_clip(shapes.Shapes.architecture, str(parts)).identity == (
        load_clip(shapes.Shapes.architecture, str(whole)).identity
    )


@pytest.mark.parametrize(("world", "images"), [("shapes", 1_000_000), ("emoji", 6_800 * 128)])
def test_the_committed_weights_are_those_of_the_log(world, images):
    from safetensors import safe_open

    weights = PRETRAINED / f"{world}.safetensors"
    with safe_open(weights, "pt") as file:
        facts = file.metadata()
    last = json.loads(weights.with_suffix(".log.jsonl").read_text().splitlines()[-1])
    assert int(facts["images"]) == last["images"] == images
    assert facts["architecture"] == pretrain_clip.WORLDS[world].architecture
    assert weights.stat().st_size < 25e6
