"""Training steps that are measured."""

import torch

from tools.benchmarking import training
from tools.benchmarking.models import build
from tools.benchmarking.precision import FLOAT32
from tools.benchmarking.training import a_step, measure, plain_step


def test_steps_stand_beside_the_reference(tiny, quick, by_quantity, monkeypatch):
    monkeypatch.setattr(training, "SEEN", ((tiny._replace(images=5), 3),))
    found = by_quantity(measure(quick))
    assert found["time"].case == "training step, 3 labels, batch 2"
    assert min(found["faster than plain reference"].values) > 0


def test_of_many_labels_the_reference_takes_two_small_numbers(tiny, quick):
    (rival,) = a_step(tiny, 201, quick, FLOAT32).rivals
    assert (len(rival.runs), rival.note) == (2, ", from 8 and 24 labels")
    (rival,) = a_step(tiny, 200, quick, FLOAT32).rivals
    assert (len(rival.runs), rival.note) == (1, "")


def test_a_step_of_the_reference_trains(tiny, quick):
    built = build(tiny, quick)
    before = [parameter.clone() for parameter in built.method.parameters()]
    plain_step(built, 3)()
    moved = [not torch.equal(a, b) for a, b in zip(before, built.method.parameters(), strict=True)]
    trained = {id(p) for group in built.method.groups() for p in group.parameters}
    assert moved == [id(parameter) in trained for parameter in built.method.parameters()]


def test_the_sizes_are_those_of_the_benchmarks():
    assert [(model.config, labels) for model, labels in training.SEEN] == [("coco.yml", 48), ("nus.yml", 925)]
    assert {model.name for model, _ in training.SEEN} == {"ViT-B/16"}
