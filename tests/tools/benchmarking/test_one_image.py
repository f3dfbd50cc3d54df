"""One image with many labels."""

import torch

from tools.benchmarking import one_image
from tools.benchmarking.models import build
from tools.benchmarking.one_image import an_image, measure, plain_image, random_labels, recognition
from tools.benchmarking.precision import FLOAT32


def test_an_image_stands_beside_the_reference(tiny, quick, by_quantity, monkeypatch):
    monkeypatch.setattr(one_image, "LARGE", tiny)
    monkeypatch.setattr(one_image, "LABELS", {True: (3,)})
    found = by_quantity(measure(quick))
    assert found["time"].case == "one image, 3 labels"
    assert min(found["faster than plain reference"].values) > 0


def test_of_many_labels_the_reference_takes_two_small_numbers(tiny, quick, monkeypatch):
    monkeypatch.setattr(one_image, "LARGE", tiny)
    notes = [an_image(labels, quick, FLOAT32).rivals[0].note for labels in (200, 1_006)]
    assert notes == ["", ", from 8 and 24 labels"]


def test_labels_that_nobody_encoded_have_features_between_those_of_others(tiny, quick):
    labels = random_labels(build(tiny, quick), 300)
    assert labels.features.shape == labels.frozen.shape == (300, 32)
    assert len(set(labels.names)) == 300
    assert len(labels.features.unique(dim=0)) > 200


def test_images_of_any_size_are_scored(tiny, quick):
    built = build(tiny, quick)
    found = recognition(built, 2, random_labels(built, 5), (16, 24))()
    assert (found.scores.shape, found.grid) == ((2, 5), (2, 3))


def test_the_reference_scores_an_image_for_all_labels(tiny, quick):
    scores = plain_image(build(tiny, quick), 7)().scores
    torch.testing.assert_close(scores.sum(1), torch.ones(1))
    assert scores.shape == (1, 7)
