"""Evidence to probabilities, and how far these can be trusted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score

from tagging.calibration import BINS, ENOUGH, GRID, PENALTY, Calibration, CalibrationError, fit, reliability

LABELS = ("common", "rare", "cup")


def drawn(images=400, seed=0):
    """Evidence (I, 3, 4), targets (I, 3) that depend on two of its numbers, and scores that say little."""
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randn(images, 3, 4, generator=generator) * torch.tensor([1.0, 50.0, 0.1, 1.0]) + 3
    logit = 2 * (evidence[..., 0] - 3) - (evidence[..., 1] - 3) / 50 - 1
    targets = (torch.rand(images, 3, generator=generator) < logit.sigmoid()).float()
    targets[:, 1] *= (torch.arange(images) < 20).float()
    return evidence, targets, torch.rand(images, 3, generator=generator)


@pytest.fixture(scope="module")
def calibration():
    return fit(*drawn(), LABELS)


def test_the_head_is_the_penalised_logistic_regression_of_scikit_learn(calibration):
    evidence, targets, _ = drawn()
    x, y = evidence.flatten(0, 1).double().numpy(), targets.flatten().numpy()
    x = (x - x.mean(0)) / x.std(0, ddof=1)
    model = LogisticRegression(C=1 / (2 * PENALTY * len(x)), tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(calibration.weight, model.coef_[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(calibration(evidence).flatten(), model.predict_proba(x)[:, 1], rtol=1e-4, atol=1e-5)


def test_probabilities_are_float32_and_of_the_shape_of_the_labels(calibration):
    probabilities = calibration(drawn()[0].half())
    assert (probabilities.dtype, probabilities.shape) == (torch.float32, (400, 3))


def test_what_is_reported_comes_from_images_that_were_not_fitted_on():
    evidence, targets, published = drawn(60)
    noise = torch.randn(60, 3, 40, generator=torch.Generator().manual_seed(9))  # enough to learn 60 images by heart
    overfitted = fit(torch.cat([evidence, noise], -1), targets, published, LABELS)
    on_itself = reliability(overfitted(torch.cat([evidence, noise], -1)), targets)
    assert overfitted.reliability.brier > on_itself.brier + 0.02


def test_published_scores_are_measured_as_they_are(calibration):
    _, targets, published = drawn()
    assert calibration.published == reliability(published, targets)
    assert calibration.images == 400


def test_reliability_by_hand():
    found = reliability(torch.tensor([[0.0, 0.05], [0.5, 1.0]]), torch.tensor([[0, 1], [1, 1]]))
    assert found.ece == pytest.approx((abs(0.05 - 1) + abs(0.5 - 1) + 0) / 4)
    assert found.brier == pytest.approx((0 + 0.95**2 + 0.25 + 0) / 4)
    assert found.pairs == [2, *[0] * 6, 1, *[0] * 6, 1]
    assert (found.share[0], found.mean[0], found.share[3]) == (0.5, pytest.approx(0.025), 0)
    assert len(found.pairs) == BINS


def test_calibrated_probabilities_have_a_small_error():
    generator = torch.Generator().manual_seed(2)
    p = torch.rand(200_000, generator=generator)
    targets = (torch.rand(200_000, generator=generator) < p).float()
    assert reliability(p, targets).ece < 0.005
    assert reliability(p, targets).brier == pytest.approx(1 / 6, abs=0.003)  # the mean of p (1 - p)


def halves(calibration, label):
    """Hits and predictions of a label as in the counts, at every threshold."""
    k = LABELS.index(label)
    return calibration.hits[k].numpy(), calibration.predicted[k].numpy(), int(calibration.positives[k])


def test_the_best_threshold_has_the_highest_f1_of_all_tried(calibration):
    hits, predicted, positives = halves(calibration, "common")
    f1 = 2 * hits / (predicted + positives)
    threshold = calibration.threshold("common")
    assert threshold == pytest.approx((f1.argmax() + 1) / (GRID + 1))
    evidence, targets, _ = drawn()
    p = calibration(evidence)[:, 0].numpy()
    reached = f1_score(targets[:, 0], p >= threshold)
    assert reached > max(f1_score(targets[:, 0], p >= t) for t in np.arange(0.05, 1, 0.05)) - 0.03


def test_counts_are_those_of_predictions_at_each_threshold(calibration):
    assert (calibration.hits <= calibration.predicted).all()
    assert (calibration.hits <= calibration.positives[:, None]).all()
    assert (calibration.predicted.diff(dim=1) <= 0).all()
    assert calibration.positives.tolist() == drawn()[1].sum(0).int().tolist()


@pytest.mark.parametrize("wanted", [0.8, 0.9])
def test_a_wanted_precision_is_reached_by_the_lowest_threshold(calibration, wanted):
    hits, predicted, _ = halves(calibration, "common")
    threshold = calibration.threshold("common", f"precision={wanted}")
    at = round(threshold * (GRID + 1)) - 1
    assert hits[at] / predicted[at] >= wanted
    assert all(hits[k] / predicted[k] < wanted for k in range(at))
    evidence, targets, _ = drawn(4000, seed=5)
    p = calibration(evidence)[:, 0].numpy()
    assert precision_score(targets[:, 0], p >= threshold) == pytest.approx(wanted, abs=0.06)


def test_a_precision_that_is_never_reached_lets_nothing_pass(calibration):
    wrong = replace(calibration, hits=calibration.predicted // 3)
    assert wrong.threshold("common", "precision=0.5") > 1
    assert wrong.threshold("common", "precision=0.1") < 1


def test_labels_with_few_positives_and_new_ones_share_the_threshold_of_all(calibration):
    assert calibration.positives[1] < ENOUGH
    pooled = 2 * calibration.hits.sum(0) / (calibration.predicted.sum(0) + calibration.positives.sum())
    shared = (int(pooled.argmax()) + 1) / (GRID + 1)
    assert calibration.threshold("rare") == calibration.threshold("never seen") == pytest.approx(shared)


def test_a_number_is_the_threshold(calibration):
    assert calibration.threshold("cup", 0.25) == 0.25


@pytest.mark.parametrize("wanted", ["worst", "precision", "precision=0", "precision=1.5", "recall=0.5", "0.5"])
def test_other_words_for_a_threshold_are_refused(calibration, wanted):
    with pytest.raises(CalibrationError, match="is none: a number, best, or precision=0.9"):
        calibration.threshold("cup", wanted)


def test_a_calibration_comes_back_from_its_state(calibration):
    again = Calibration.from_state(calibration.state())
    evidence = drawn()[0]
    assert torch.equal(again(evidence), calibration(evidence))
    assert (again.labels, again.published, again.reliability) == (
        LABELS,
        calibration.published,
        calibration.reliability,
    )
    assert again.threshold("common") == calibration.threshold("common")


def test_the_state_of_something_else_is_refused(calibration):
    with pytest.raises(CalibrationError, match="no calibration of this version"):
        Calibration.from_state({**calibration.state(), "more": 1})


def test_the_summary_names_both_errors(calibration):
    after, before = calibration.reliability, calibration.published
    said = calibration.summary()
    assert said.startswith(f"ECE {after.ece:.3f} (published scores {before.ece:.3f})")
    assert "400 images" in said


def test_too_few_images_are_refused():
    evidence, targets, published = drawn()
    with pytest.raises(CalibrationError, match="3 validation images are too few"):
        fit(evidence[:3], targets[:3], published[:3], LABELS)


def test_labels_that_are_never_or_always_there_calibrate_nothing():
    evidence, targets, published = drawn()
    for value in (0, 1):
        with pytest.raises(CalibrationError, match="too few labels are present in the validation images, or too many"):
            fit(evidence, torch.full_like(targets, value), published, LABELS)


def test_very_many_pairs_are_fitted_on_a_part(monkeypatch, calibration):
    monkeypatch.setattr("tagging.calibration.LARGEST", 600)
    evidence, targets, published = drawn()
    again, same = (fit(evidence, targets, published, LABELS) for _ in range(2))
    assert torch.equal(again.weight, same.weight)
    assert not torch.equal(again.weight, calibration.weight)
    assert (again(evidence) - calibration(evidence)).abs().mean() < 0.05


def test_where_no_threshold_hits_anything_nothing_passes(calibration):
    assert replace(calibration, hits=0 * calibration.hits).threshold("common") > 1


def test_equally_good_thresholds_give_the_middle_one(calibration):
    flat = replace(
        calibration, predicted=torch.full_like(calibration.predicted, 7), hits=torch.full_like(calibration.hits, 7)
    )
    assert flat.threshold("common") == pytest.approx(0.5)


def test_evidence_that_is_not_finite_is_refused():
    evidence, targets, published = drawn()
    evidence[3, 1, 2] = torch.nan
    with pytest.raises(CalibrationError, match="is not finite"):
        fit(evidence, targets, published, LABELS)


def test_probabilities_that_are_worse_than_published_scores_are_told(calibration):
    worse = replace(calibration, published=calibration.reliability._replace(brier=0.0))
    assert "WORSE than the published scores" in worse.summary()
    assert "WORSE" not in replace(calibration, published=calibration.reliability).summary()


@pytest.mark.parametrize(
    "spoil",
    [
        {"bias": float("nan")}, {"bias": None}, {"weight": torch.full((4,), torch.nan, dtype=torch.float64)},
        {"weight": torch.zeros(3, dtype=torch.float64)}, {"std": torch.zeros(4, dtype=torch.float64)},
        {"labels": ["one"]}, {"hits": torch.zeros(3, 5)},
    ],
)  # fmt: skip
def test_a_spoilt_state_is_refused(calibration, spoil):
    with pytest.raises(CalibrationError, match="no calibration of this version"):
        Calibration.from_state({**calibration.state(), **spoil})
