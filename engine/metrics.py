"""What the field reports of scores against targets: P, R and F1 of the top k labels, their class means, and mAP.

I images, C classes (labels), K top-k. With hits, predictions and positives per class (Nc, Np, Ng):
    overall    P = sum Nc / sum Np, R = sum Nc / sum Ng, F1 their harmonic mean (LESA, MKT, DualCoOp, RAM)
    per class  CP = mean(Nc / Np), CR = mean(Nc / Ng), CF1 the harmonic mean of CP and CR (ML-GCN, HCP, RAM; the
               mean of per-class F1 that DualCoOp and ASL report under this name is another number)
    mAP        mean over classes of the non-interpolated average precision (BiAM, MKT, ASL), and of the interpolated one
               (SST, SARB; `engine.average_precision`)
A quotient with denominator 0 is 0. Images without a positive count: they have K predictions like any other.

Ties are broken by order, so that results are reproducible: the lower class index enters the top k first, the lower
image index ranks first. scikit-learn's `average_precision_score` treats equal scores as one threshold instead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.average_precision import AveragePrecision, average_precision
from errors import UserError

__all__ = ["Metrics", "MetricsError", "checked", "measure"]

Array = np.ndarray


class MetricsError(UserError, ValueError):
    """Scores or targets that cannot be measured; the message is one line."""


class Metrics(NamedTuple):
    """Measured quality, in percent.

    Attributes:
        summary: `P@k, R@k, F1@k` for each k, `CP@k, CR@k, CF1@k` for each k, `mAP` (classes without positives count
            0), `mAP_present` (classes with at least one positive; 0 if there is none), `mAP_interpolated` (all classes)
            and, with a threshold, `OP, OR, OF1, CP, CR, CF1`. In this order.
        per_class: arrays (C,): `positives` (images), `AP` and `AP_interpolated` (nan where there are no positives) and,
            for each k, `predicted@k` (images), `precision@k, recall@k, F1@k`; with a threshold these without `@k` too.
        counts: `images`, `classes` and `labels_per_image`, the mean number of positives.
    """

    summary: dict[str, float]
    per_class: dict[str, Array]
    counts: dict[str, int | float]


class Tally(NamedTuple):
    """Images per class, each (C,): hits (Nc), predicted (Np) and positives (Ng)."""

    hits: Array
    predicted: Array
    positives: Array


def measure(scores: Array, targets: Array, *, ks: Sequence[int] = (3, 5), threshold: float | None = None) -> Metrics:
    """All metrics of `scores` (module docstring), overall and per class.

    Adding a constant to the scores of an image leaves the top-k metrics as they are, but not mAP.

    Args:
        scores: (I, C), floating point, finite; higher is more likely.
        targets: (I, C), 0 or 1 of any dtype.
        ks: sizes of the top k; where k exceeds C, all C labels are predicted.
        threshold: also measure the predictions `scores >= threshold`, compared in the dtype of `scores`. Has a meaning
            only for scores that are a probability of each label by itself, such as a sigmoid's. RAM's scores share
            one softmax over all labels: no fixed threshold suits them.

    Returns:
        Metrics in percent.

    Raises:
        MetricsError: as `checked`; if a k is not a positive integer or the threshold is not finite.
    """
    scores, targets = checked(scores, targets)
    if not all(isinstance(k, int | np.integer) and k > 0 for k in ks):
        raise MetricsError(f"ks are {tuple(ks)}: the sizes of the top k must be positive integers")
    if threshold is not None and not np.isfinite(threshold):
        raise MetricsError(f"the threshold is {threshold}: it must be a finite number")
    tallies = {f"@{k}": tally(top_k(scores, int(k)), targets) for k in ks}
    overall: dict[str, Array] = {}
    class_mean: dict[str, Array] = {}
    thresholded: dict[str, Array] = {}
    for at, counted in tallies.items():
        overall |= zip((f"P{at}", f"R{at}", f"F1{at}"), overall_rates(counted), strict=True)
        class_mean |= zip((f"CP{at}", f"CR{at}", f"CF1{at}"), class_mean_rates(counted), strict=True)
    precision = average_precision(scores, targets)
    present = precision.plain[~np.isnan(precision.plain)]
    mean = {
        "mAP": present.sum() / len(precision.plain),
        "mAP_present": present.mean() if len(present) else 0.0,
        "mAP_interpolated": np.nansum(precision.interpolated) / len(precision.plain),
    }
    if threshold is not None:
        tallies[""] = counted = tally(scores >= float(threshold), targets)
        thresholded |= zip(("OP", "OR", "OF1"), overall_rates(counted), strict=True)
        thresholded |= zip(("CP", "CR", "CF1"), class_mean_rates(counted), strict=True)
    return Metrics(
        {name: 100 * float(value) for name, value in (overall | class_mean | mean | thresholded).items()},
        per_class(precision, targets.sum(0), tallies),
        {"images": len(scores), "classes": scores.shape[1], "labels_per_image": float(targets.sum() / len(scores))},
    )


def checked(scores: Array, targets: Array) -> tuple[Array, Array]:
    """Scores as they are and targets as (I, C) bool.

    Raises:
        MetricsError: if the shapes are not one (I, C) with at least one image and one class, `scores` are not floating
            point or not finite, or `targets` hold anything but 0 and 1.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape != targets.shape:
        raise MetricsError(f"scores are {scores.shape}, targets {targets.shape}: both must be (images, classes)")
    if scores.size == 0:
        raise MetricsError(f"scores are {scores.shape}: there must be at least one image and one class")
    if not np.issubdtype(scores.dtype, np.floating):
        raise MetricsError(f"scores are {scores.dtype}: they must be floating point")
    broken = ~np.isfinite(scores)
    if broken.any():
        image, label = np.argwhere(broken)[0]
        raise MetricsError(
            f"{broken.sum()} of {scores.size} scores are not finite, the first is {scores[image, label]} "
            f"at image {image}, class {label}"
        )
    positive = targets == 1
    foreign = ~positive & (targets != 0)
    if foreign.any():
        raise MetricsError(f"targets hold {targets[foreign][0]}: they must be 0 or 1; leave unknown labels out")
    return scores, positive


def top_k(scores: Array, k: int) -> Array:
    """(I, C) bool, the k highest scores of each image; of equal scores those with the lower class index."""
    classes = scores.shape[1]
    if k >= classes:
        return np.ones(scores.shape, bool)
    kth = np.partition(scores, classes - k, axis=1)[:, classes - k, None].copy()  # (I, 1); frees the rest
    above, equal = scores > kth, scores == kth
    free = k - above.sum(1, dtype=np.int32, keepdims=True)
    return above | (equal & (equal.cumsum(1, dtype=np.int32) <= free))


def tally(predicted: Array, targets: Array) -> Tally:
    """Hits, predictions and positives of each class; both arguments are (I, C) bool."""
    return Tally((predicted & targets).sum(0), predicted.sum(0), targets.sum(0))


def overall_rates(counted: Tally) -> tuple[Array, Array, Array]:
    """P, R and F1 of all classes together, in [0, 1]."""
    hits, predicted, positives = (n.sum() for n in counted)
    precision, recall = quotient(hits, predicted), quotient(hits, positives)
    return precision, recall, harmonic_mean(precision, recall)


def class_mean_rates(counted: Tally) -> tuple[Array, Array, Array]:
    """CP, CR and CF1 in [0, 1]; a class without predictions has precision 0, one without positives recall 0."""
    precision = quotient(counted.hits, counted.predicted).mean()
    recall = quotient(counted.hits, counted.positives).mean()
    return precision, recall, harmonic_mean(precision, recall)


def per_class(precision: AveragePrecision, positives: Array, tallies: dict[str, Tally]) -> dict[str, Array]:
    """Arrays (C,) by name, as `Metrics.per_class` describes: images as counts, rates in percent.

    Args:
        precision: of the C classes.
        positives: (C,), images.
        tallies: by the suffix of their names, such as "@3".
    """
    columns = {"positives": positives, "AP": 100 * precision.plain, "AP_interpolated": 100 * precision.interpolated}
    for at, counted in tallies.items():
        p, r = quotient(counted.hits, counted.predicted), quotient(counted.hits, counted.positives)
        columns |= {f"predicted{at}": counted.predicted, f"precision{at}": 100 * p, f"recall{at}": 100 * r}
        columns[f"F1{at}"] = 100 * harmonic_mean(p, r)
    return columns


def harmonic_mean(a: Array, b: Array) -> Array:
    """2 a b / (a + b) of rates >= 0, elementwise, and 0 where both are 0."""
    return quotient(2 * a * b, a + b)


def quotient(a: Array, b: Array) -> Array:
    """The ratio a / b in float64, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=np.asarray(b) > 0)
