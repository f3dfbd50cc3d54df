"""The parts of a training step."""

import pytest
import torch

from tools.benchmarking import parts
from tools.benchmarking.models import build, label_names
from tools.benchmarking.parts import PARTS, REST, measure, timed_step

BEHIND = ("loss", "backward pass", "optimisers and average")


@pytest.fixture
def built(tiny, quick):
    return build(tiny, quick)


def test_every_part_takes_time_and_all_together_are_the_step(built, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(parts, "_now", lambda device: float(next(clock)))  # noqa: ARG005
    spent = timed_step(built, label_names(4))()
    assert set(spent) == {*PARTS.values(), REST, *BEHIND}
    assert min(spent.values()) >= 1
    readings = next(clock) - 1
    assert sum(spent.values()) == readings - 1  # each interval once, but for that between forward pass and loss


def test_a_step_trains_and_leaves_the_method_as_it_was(built):
    before, prompts = set(built.method.trunk.__dict__), built.method.visual_prompts.by_block["2"].clone()
    teach = built.method.teach
    timed_step(built, label_names(4))()
    assert set(built.method.trunk.__dict__) == before
    assert built.method.teach is teach
    assert "forward" not in built.method.adapter.__dict__
    assert not torch.equal(prompts, built.method.visual_prompts.by_block["2"])


def test_what_a_method_does_not_have_is_no_part(built, monkeypatch):
    monkeypatch.setitem(PARTS, "trunk.gone", "gone")
    monkeypatch.setitem(PARTS, "nothing.forward", "nothing")
    assert not {"gone", "nothing"} & set(timed_step(built, label_names(4))())


def test_the_steps_of_training_are_taken_apart(tiny, quick, by_quantity, monkeypatch):
    monkeypatch.setattr(parts, "SEEN", ((tiny, 3),))
    found = by_quantity(measure(quick))
    assert found["ladder"].case == "parts of a step, 3 labels, batch 2"
    assert len(found["ladder"].values) == 2
