import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from engine.metrics import MetricsError, measure

IMAGES, CLASSES = 40, 9
EMPTY_CLASS, EMPTY_IMAGE = 4, 7  # without a positive


@pytest.fixture
def targets():
    targets = np.random.default_rng(0).random((IMAGES, CLASSES)) < np.linspace(0.1, 0.6, CLASSES)
    targets[:, EMPTY_CLASS] = targets[EMPTY_IMAGE] = False
    return targets.astype(np.int64)


@pytest.fixture
def distinct(targets):
    """Scores without ties, better than chance."""
    rng = np.random.default_rng(1)
    return rng.permutation(targets.size).reshape(targets.shape) / targets.size + 0.3 * targets + 1e-6 * rng.random()


@pytest.fixture
def tied(distinct):
    """Scores with many ties in both directions; they are float32, as a network's."""
    return (np.round(distinct * 3) / 3).astype(np.float32)


def ratio(a, b):
    return a / b if b else 0.0


def harmonic(a, b):
    return ratio(2 * a * b, a + b)


def chosen_by_loop(scores, k):
    chosen = np.zeros(scores.shape, int)
    for row, scored in zip(chosen, scores.tolist(), strict=True):
        for label in sorted(range(len(scored)), key=lambda c, s=scored: (-s[c], c))[:k]:
            row[label] = 1
    return chosen


def rates_by_loop(chosen, targets):
    """P, R, F1, CP, CR, CF1 in percent, counted one decision at a time."""
    images, classes = targets.shape
    hits, predicted, positives = [0] * classes, [0] * classes, [0] * classes
    for i in range(images):
        for c in range(classes):
            hits[c] += chosen[i, c] == 1 and targets[i, c] == 1
            predicted[c] += chosen[i, c] == 1
            positives[c] += targets[i, c] == 1
    p, r = ratio(sum(hits), sum(predicted)), ratio(sum(hits), sum(positives))
    cp = sum(map(ratio, hits, predicted)) / classes
    cr = sum(map(ratio, hits, positives)) / classes
    return [100 * float(x) for x in (p, r, harmonic(p, r), cp, cr, harmonic(cp, cr))]


def average_precision_by_loop(scores, targets):
    found, total = 0, 0.0
    ranking = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    for rank, image in enumerate(ranking, start=1):
        if targets[image] == 1:
            found += 1
            total += found / rank
    return 100 * total / found if found else np.nan


@pytest.mark.parametrize("k", [1, 3, 5, 8, 9, 20])
@pytest.mark.parametrize("kind", ["distinct", "tied"])
def test_top_k_metrics_equal_a_count_by_loops(request, kind, k, targets):
    scores = request.getfixturevalue(kind)
    summary = measure(scores, targets, ks=(k,)).summary
    names = [f"{name}@{k}" for name in ("P", "R", "F1", "CP", "CR", "CF1")]
    expected = rates_by_loop(chosen_by_loop(scores, k), targets)
    np.testing.assert_allclose([summary[name] for name in names], expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["distinct", "tied"])
def test_average_precision_equals_a_walk_down_the_ranking(request, kind, targets):
    scores = request.getfixturevalue(kind)
    metrics = measure(scores, targets)
    expected = [average_precision_by_loop(scores[:, c].tolist(), targets[:, c]) for c in range(CLASSES)]
    np.testing.assert_allclose(metrics.per_class["AP"], expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.summary["mAP"], np.nansum(expected) / CLASSES, rtol=1e-12)
    np.testing.assert_allclose(metrics.summary["mAP_present"], np.nanmean(expected), rtol=1e-12)
    interpolated = metrics.per_class["AP_interpolated"]
    np.testing.assert_allclose(metrics.summary["mAP_interpolated"], np.nansum(interpolated) / CLASSES, rtol=1e-12)


def test_average_precision_equals_scikit_learn_where_no_scores_are_equal(distinct, targets):
    present = [c for c in range(CLASSES) if c != EMPTY_CLASS]
    expected = [100 * average_precision_score(targets[:, c], distinct[:, c]) for c in present]
    np.testing.assert_allclose(measure(distinct, targets).per_class["AP"][present], expected, rtol=1e-12)


@pytest.mark.parametrize("k", [3, 5])
def test_overall_metrics_are_the_micro_averages_of_scikit_learn(distinct, targets, k):
    chosen = (distinct >= np.sort(distinct, axis=1)[:, -k, None]).astype(int)
    expected = [100 * f(targets, chosen, average="micro") for f in (precision_score, recall_score, f1_score)]
    summary = measure(distinct, targets).summary
    np.testing.assert_allclose([summary[f"{name}@{k}"] for name in ("P", "R", "F1")], expected, rtol=1e-12)


def test_class_means_are_the_macro_averages_of_scikit_learn(distinct, targets):
    summary = measure(distinct, targets, threshold=0.7).summary
    expected = [100 * f(targets, (distinct >= 0.7).astype(int), average="macro", zero_division=0)
                for f in (precision_score, recall_score)]  # fmt: skip
    np.testing.assert_allclose([summary["CP"], summary["CR"]], expected, rtol=1e-12)


def test_cf1_is_the_harmonic_mean_of_cp_and_cr_and_not_the_mean_of_the_classes():
    # class 0: 1 hit of 1 predicted, 2 positives; class 1: 2 hits of 3 predicted, 2 positives
    targets = np.array([[1, 1], [1, 1], [0, 0]])
    scores = np.array([[0.9, 0.9], [0.1, 0.9], [0.1, 0.9]])
    summary = measure(scores, targets, threshold=0.5).summary
    cp, cr = (1 + 2 / 3) / 2, (1 / 2 + 1) / 2
    assert summary["CF1"] == pytest.approx(100 * 2 * cp * cr / (cp + cr))
    assert summary["CF1"] != pytest.approx(100 * (2 / 3 + 4 / 5) / 2)


@pytest.mark.parametrize("threshold", [-1.0, 0.25, 1 / 3, 1.0, 5.0])
def test_threshold_metrics_equal_a_count_by_loops(tied, targets, threshold):
    summary = measure(tied.astype(float), targets, threshold=threshold).summary
    expected = rates_by_loop((tied.astype(float) >= threshold).astype(int), targets)
    np.testing.assert_allclose([summary[n] for n in ("OP", "OR", "OF1", "CP", "CR", "CF1")], expected, rtol=1e-12)


def test_a_score_equal_to_the_threshold_is_predicted_in_the_dtype_of_the_scores():
    scores = np.array([[0.7, 0.6]], np.float32)  # 0.7 in float32 lies below 0.7 in float64
    assert measure(scores, [[1, 0]], threshold=0.7).summary["OR"] == 100
    assert measure(scores, [[1, 0]], threshold=np.float64(0.7)).summary["OR"] == 100


def test_a_perfect_ranking_has_full_map_and_the_closed_form_bound_at_k(targets):
    summary = measure(targets + 0.5, targets).summary
    hits = np.minimum(targets.sum(1), 3).sum()
    precision, recall = hits / (3 * IMAGES), hits / targets.sum()
    assert summary["mAP_present"] == pytest.approx(100)
    assert summary["mAP"] == pytest.approx(100 * (CLASSES - 1) / CLASSES)
    assert summary["F1@3"] == pytest.approx(100 * 2 * precision * recall / (precision + recall))


def test_the_last_ranked_positive_has_an_average_precision_of_one_over_the_images():
    targets = np.eye(8)[:, :1]
    assert measure(np.arange(8.0)[:, None], targets).summary["mAP"] == pytest.approx(100 / 8)


def test_of_equal_scores_the_lower_class_index_enters_the_top_k():
    predicted = measure(np.array([[0.5, 0.5, 0.9, 0.5]]), np.ones((1, 4)), ks=(3,)).per_class["predicted@3"]
    assert predicted.tolist() == [1, 1, 1, 0]


def test_of_equal_scores_the_lower_image_index_ranks_first():
    scores = np.full((4, 2), 0.5)
    average_precision = measure(scores, [[1, 0], [0, 0], [0, 0], [0, 1]]).per_class["AP"]
    np.testing.assert_allclose(average_precision, [100, 25])


def test_ranks_do_not_depend_on_the_number_of_images_that_are_sorted():
    targets = np.arange(5000)[:, None] == 4999  # sorting methods that are stable only for short arrays fail here
    assert measure(np.zeros((5000, 1)), targets).summary["mAP"] == pytest.approx(100 / 5000)


def test_a_class_without_positives_counts_0_in_map_and_is_left_out_of_map_present():
    scores, targets = np.array([[0.9, 0.2], [0.1, 0.8]]), np.array([[1, 0], [0, 0]])
    metrics = measure(scores, targets)
    assert metrics.summary["mAP"] == 50
    assert metrics.summary["mAP_present"] == 100
    assert metrics.summary["mAP_interpolated"] == 50
    assert np.isnan(metrics.per_class["AP"]).tolist() == [False, True]


def test_an_image_without_positives_lowers_precision_but_not_recall():
    one = measure([[0.9, 0.1]], [[1, 0]], ks=(1,)).summary
    two = measure([[0.9, 0.1], [0.9, 0.1]], [[1, 0], [0, 0]], ks=(1,)).summary
    assert (one["P@1"], one["R@1"]) == (100, 100)
    assert (two["P@1"], two["R@1"]) == (50, 100)


def test_k_beyond_the_classes_predicts_every_label_once(targets, distinct):
    summary = measure(distinct, targets, ks=(CLASSES + 1,)).summary
    assert summary[f"P@{CLASSES + 1}"] == pytest.approx(100 * targets.mean())
    assert summary[f"R@{CLASSES + 1}"] == 100


def test_without_any_positive_every_rate_is_0(distinct, targets):
    assert set(measure(distinct, np.zeros_like(targets), threshold=0.5).summary.values()) == {0.0}


def test_the_summary_has_these_names_in_this_order(distinct, targets):
    top = ["P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "CP@3", "CR@3", "CF1@3", "CP@5", "CR@5", "CF1@5"]
    plain, thresholded = measure(distinct, targets).summary, measure(distinct, targets, threshold=0.0).summary
    assert list(plain) == [*top, "mAP", "mAP_present", "mAP_interpolated"]
    assert list(thresholded) == [*plain, "OP", "OR", "OF1", "CP", "CR", "CF1"]
    assert {type(value) for value in thresholded.values()} == {float}


def test_class_means_of_the_summary_are_means_of_the_per_class_columns(tied, targets):
    summary, per_class, _ = measure(tied, targets, threshold=0.5)
    for at in ("@3", "@5", ""):
        assert per_class[f"precision{at}"].mean() == pytest.approx(summary[f"CP{at}"])
        assert per_class[f"recall{at}"].mean() == pytest.approx(summary[f"CR{at}"])


def test_f1_per_class_equals_scikit_learn(tied, targets):
    expected = 100 * f1_score(targets, chosen_by_loop(tied, 3), average=None, zero_division=0)
    np.testing.assert_allclose(measure(tied, targets).per_class["F1@3"], expected, rtol=1e-12)


def test_per_class_counts_are_column_sums(tied, targets):
    per_class = measure(tied, targets).per_class
    assert per_class["positives"].tolist() == targets.sum(0).tolist()
    assert per_class["predicted@5"].tolist() == chosen_by_loop(tied, 5).sum(0).tolist()


def test_counts_describe_the_test_set(distinct, targets):
    counts = measure(distinct, targets).counts
    assert counts == {"images": IMAGES, "classes": CLASSES, "labels_per_image": targets.sum() / IMAGES}


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_the_dtype_of_the_targets_does_not_matter(tied, targets, dtype):
    assert measure(tied, targets.astype(dtype)).summary == measure(tied, targets).summary


def test_arguments_are_not_changed(tied, targets):
    before = tied.copy(), targets.copy()
    tied.flags.writeable = targets.flags.writeable = False
    measure(tied, targets, threshold=0.5)
    assert (tied == before[0]).all()
    assert (targets == before[1]).all()


@pytest.mark.parametrize(
    ("scores", "wrong", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), r"scores are \(2, 3\), targets \(3, 2\)"),
        (np.zeros(3), np.zeros(3), r"scores are \(3,\), targets \(3,\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"scores are \(0, 3\): there must be at least one image"),
        (np.zeros((3, 0)), np.zeros((3, 0)), r"scores are \(3, 0\): there must be at least one image"),
        (np.zeros((2, 2), int), np.zeros((2, 2)), "scores are int64: they must be floating point"),
        ([[0.0, 1.0], [0.0, np.nan]], np.eye(2), "1 of 4 scores are not finite, the first is nan at image 1, class 1"),
        ([[0.0, -np.inf], [np.inf, 0]], np.eye(2), "2 of 4 .* the first is -inf at image 0, class 1"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, -1]]), "targets hold -1: they must be 0 or 1"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, 0.5]]), r"targets hold 0\.5"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, np.nan]]), "targets hold nan"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(scores, wrong, message):
    with pytest.raises(MetricsError, match=f"^{message}") as caught:
        measure(scores, wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ks", [(0,), (3, -1), (2.5,)])
def test_sizes_that_are_no_positive_integers_are_refused(distinct, targets, ks):
    with pytest.raises(MetricsError, match="must be positive integers"):
        measure(distinct, targets, ks=ks)


@pytest.mark.parametrize("threshold", [np.nan, np.inf])
def test_a_threshold_that_is_not_finite_is_refused(distinct, targets, threshold):
    with pytest.raises(MetricsError, match=f"the threshold is {threshold}"):
        measure(distinct, targets, threshold=threshold)
