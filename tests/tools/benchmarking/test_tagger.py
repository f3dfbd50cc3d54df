"""The tagger beside the bare tower."""

import pytest
import torch

from datasets import shapes
from tools.benchmarking import tagger
from tools.benchmarking.models import Model
from tools.benchmarking.tagger import measure, random_asked, untrained

TINY = Model("tiny", "tiny.yml", ("MODEL.TEMPERATURE", "auto"), 4)


def test_a_model_without_a_training_tags():
    made = untrained(TINY, torch.device("cpu"))
    asked = random_asked(made, 7)
    assert (made.calibrated, asked.text.shape[0], made.seen) == (True, 7, shapes.SEEN)
    torch.testing.assert_close(asked.text.norm(dim=1), torch.ones_like(asked.text[:, 0]))
    assert asked.text.dtype == made.labels(["x"]).text.dtype
    (tags,) = made.tag([shapes.scene("test", 0).image], asked)
    assert len(tags.labels) == 7


def test_it_is_measured_beside_the_bare_tower_and_with_many_labels(quick, monkeypatch):
    monkeypatch.setattr(tagger, "MODELS", (TINY, TINY))
    monkeypatch.setattr(tagger, "MANY", (10, 300))
    rows = {(one.case.removeprefix("tagger, tiny, "), one.quantity): one.values for one in measure(quick)}
    batch = "4 pictures, 65 labels"
    timed = [key for key in rows if key[1] != "memory"]
    assert timed == [
        *((batch, name) for name in ("bare image tower", "tag", "index")),
        (batch, "tag, of the bare tower's speed"), (batch, "tag, of the bare tower's speed, by processor time"),
        ("1 picture, 10 labels", "time"), ("1 picture, 300 labels", "time"),
    ]  # fmt: skip
    bare, tag = rows[batch, "bare image tower"], rows[batch, "tag"]
    shares = [100 * t / b for b, t in zip(bare, tag, strict=True)]
    assert rows[batch, "tag, of the bare tower's speed"] == pytest.approx(shares)
