import numpy as np
import pytest

from engine.average_precision import average_precision

IMAGES, CLASSES = 60, 7


def drawn(seed):
    rng = np.random.default_rng(seed)
    targets = rng.random((IMAGES, CLASSES)) < 0.25
    return rng.permutation(targets.size).reshape(targets.shape) / targets.size + 0.2 * targets, targets


def voc2010(scores, targets):
    """The devkit's own computation, `VOCap.m`: the area under a precision that is made to fall, over the recall."""
    hits = targets[np.argsort(-scores, kind="stable")].astype(float)
    recall = np.concatenate([[0], hits.cumsum() / hits.sum(), [1]])
    precision = np.concatenate([[0], hits.cumsum() / np.arange(1, len(hits) + 1), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return ((recall[steps] - recall[steps - 1]) * precision[steps]).sum()


@pytest.mark.parametrize("seed", range(3))
def test_interpolated_is_the_area_of_vocs_devkit(seed):
    scores, targets = drawn(seed)
    found = average_precision(scores, targets).interpolated
    np.testing.assert_allclose(found, [voc2010(scores[:, c], targets[:, c]) for c in range(CLASSES)], rtol=1e-12)


def test_interpolated_is_never_less_than_plain_and_both_are_1_of_a_perfect_ranking():
    scores, targets = drawn(5)
    plain, interpolated = average_precision(scores, targets)
    assert (interpolated >= plain).all()
    assert (interpolated > plain).any()
    for perfect in average_precision(targets.astype(float), targets):
        np.testing.assert_allclose(perfect, 1)


def test_by_hand():
    """Positives at ranks 2, 3 and 5: precisions 1/2, 2/3 and 3/5, made to fall 2/3, 2/3 and 3/5."""
    plain, interpolated = average_precision(-np.arange(5.0)[:, None], np.array([[0], [1], [1], [0], [1]], bool))
    np.testing.assert_allclose(plain, (1 / 2 + 2 / 3 + 3 / 5) / 3)
    np.testing.assert_allclose(interpolated, (2 / 3 + 2 / 3 + 3 / 5) / 3)


def test_a_class_without_positives_has_neither():
    for value in average_precision(np.zeros((3, 1)), np.zeros((3, 1), bool)):
        assert np.isnan(value).all()
