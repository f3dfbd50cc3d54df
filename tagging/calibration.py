"""Evidence to probabilities: a logistic regression that all labels share, fitted on labels of validation images.

Nothing in it belongs to one label, so it holds for labels that neither training nor fitting saw. What is reported of
it, and the thresholds, come from images that it was not fitted on: every image is judged by a fit on the other half.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from errors import UserError

__all__ = ["Calibration", "CalibrationError", "Reliability", "fit", "reliability"]

GRID = 199  # thresholds that are tried: 0.005, 0.010, ..., 0.995
ENOUGH = 10  # positives from which a label has a threshold of its own
LARGEST = 1_000_000  # pairs of image and label that are fitted on
STEPS, FLAT = 100, 1e-10  # of Newton's method at most, and the change of a weight that ends it
PENALTY = 1e-4  # of squared weights, per pair
BINS = 15
NEVER = 1.1  # a threshold that no probability reaches


class CalibrationError(UserError, ValueError):
    """Too little to calibrate on, a threshold that cannot be had, or probabilities of what is not calibrated."""


class Reliability(NamedTuple):
    """How far probabilities can be taken at their word."""

    ece: float  # expected calibration error: mean over pairs of |share of positives - mean probability| of their bin
    brier: float  # mean squared error
    share: list[float]  # positives by bin of probability, 0 where the bin is empty
    mean: list[float]  # probability by bin, likewise
    pairs: list[int]  # by bin


@dataclass(frozen=True)
class Calibration:
    """A fitted head, and how its predictions fare label by label.

    Attributes:
        mean: (F,), of the evidence it was fitted on.
        std: (F,).
        weight: (F,), float64.
        bias: a number.
        labels: of the validation images, L.
        positives: (L,), images with each.
        hits: (L, GRID), of them those with a probability at or above each threshold.
        predicted: (L, GRID), images with a probability at or above.
        published: how far the published scores could be taken as probabilities.
        reliability: how far the probabilities can.
        images: of the fit.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: float
    labels: tuple[str, ...]
    positives: Tensor
    hits: Tensor
    predicted: Tensor
    published: Reliability | None
    reliability: Reliability | None
    images: int

    def __call__(self, evidence: Tensor) -> Tensor:
        """Probabilities (...), float32, of evidence (..., F)."""
        weight = (self.weight / self.std).to(evidence.device)
        offset = self.bias - float((self.weight / self.std * self.mean).sum())
        return (evidence.double() @ weight + offset).sigmoid().float()

    def threshold(self, label: str, wanted: str | float = "best") -> float:
        """The probability from which a label counts as present.

        Its own where enough validation images have it, otherwise the one of all labels together.

        Args:
            label: any.
            wanted: a number, which is the threshold; "best": for the highest F1; "precision=0.9": the lowest with this
                precision.

        Raises:
            CalibrationError: if `wanted` is nothing of that.
        """
        if not isinstance(wanted, str):
            return float(wanted)
        place = self.labels.index(label) if label in self.labels else -1
        own = place >= 0 and self.positives[place] >= ENOUGH
        rows = slice(place, place + 1) if own else slice(None)
        hits, predicted, positives = (t[rows].sum(0).double() for t in (self.hits, self.predicted, self.positives))
        grid = torch.arange(1, GRID + 1, dtype=torch.float64) / (GRID + 1)
        if wanted == "best":
            f1 = 2 * hits / (predicted + positives).clamp(min=1)
            ties = (f1 == f1.max()).nonzero().flatten()
            return float(grid[ties[len(ties) // 2]]) if f1.max() > 0 else NEVER
        reached = ((hits / predicted.clamp(min=1) >= _precision(wanted)) & (predicted > 0)).nonzero()
        return float(grid[reached[0, 0]]) if len(reached) else NEVER

    def summary(self) -> str:
        """What was gained, in a line."""
        before, after = self.published, self.reliability
        assert before is not None and after is not None  # noqa: PT018 - as `fit` gives both
        warning = ", WORSE than the published scores: more validation images are needed" * (after.brier > before.brier)
        return (
            f"ECE {after.ece:.3f} (published scores {before.ece:.3f}), Brier {after.brier:.3f} ({before.brier:.3f}), "
            f"{self.images:,} images{warning}"
        )

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, which `from_state` takes."""
        return {
            **vars(self), "labels": list(self.labels),
            **{name: None if (r := vars(self)[name]) is None else r._asdict() for name in ("published", "reliability")},
        }  # fmt: skip

    def _check(self) -> None:
        """Refuses what could not have been fitted; TypeError names it."""
        head, labels = (self.mean, self.std, self.weight), len(self.labels)
        if {tuple(t.shape) for t in head} != {(self.weight.numel(),)} or not all(
            bool(t.isfinite().all()) for t in head
        ):
            raise TypeError("its weights are not finite, or not one for each number of the evidence")
        if not isinstance(self.bias, float) or not math.isfinite(self.bias) or bool((self.std <= 0).any()):
            raise TypeError("its bias or a spread is no number that can be")
        if {tuple(self.hits.shape), tuple(self.predicted.shape)} != {(labels, GRID)} or len(self.positives) != labels:
            raise TypeError("its counts are not those of its labels")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Calibration":
        """What `state` gave.

        Raises:
            CalibrationError: if it is nothing of the kind.
        """
        try:
            both = {name: Reliability(**state[name]) for name in ("published", "reliability")}
            made = cls(**{**state, **both, "labels": tuple(state["labels"])})
            made._check()
            return made
        except (TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"no calibration of this version: {error}") from error


def fit(evidence: Tensor, targets: Tensor, published: Tensor, labels: Sequence[str], *, seed: int = 0) -> Calibration:
    """A calibration on I images and L labels.

    Args:
        evidence: (I, L, F).
        targets: (I, L), 0 or 1.
        published: (I, L), scores in [0, 1] to compare with.
        labels: L.
        seed: of the halves, and of the pairs that are fitted on where there are very many.

    Raises:
        CalibrationError: if there are fewer than four images, or no or only positives in a half of them.
    """
    images = len(evidence)
    if images < 4:
        raise CalibrationError(f"{images} validation images are too few to calibrate on: set DATASETS.VAL")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randperm(images, generator=generator) < images // 2  # (I,)
    apart = torch.empty_like(targets, dtype=torch.float32)
    for chosen in (half, ~half):
        apart[chosen] = _fitted(evidence[~chosen], targets[~chosen], generator)(evidence[chosen])
    head = _fitted(evidence, targets, generator)
    grid = torch.arange(1, GRID + 1) / (GRID + 1)
    at_least = apart[..., None] >= grid  # (I, L, GRID)
    return replace(
        head, labels=tuple(labels), positives=targets.bool().sum(0), predicted=at_least.sum(0),
        hits=(at_least & targets.bool()[..., None]).sum(0), published=reliability(published, targets),
        reliability=reliability(apart, targets), images=images,
    )  # fmt: skip


def reliability(probabilities: Tensor, targets: Tensor) -> Reliability:
    """ECE over 15 bins of equal width, Brier score, and what a reliability diagram shows.

    Args:
        probabilities: of any shape, in [0, 1].
        targets: of the same shape, 0 or 1.
    """
    p, y = probabilities.flatten().double(), targets.flatten().double()
    bins = (p * BINS).long().clamp(0, BINS - 1)
    count, sums, hits = (
        torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, v) for v in (torch.ones_like(p), p, y)
    )
    gaps = (sums - hits).abs().sum() / len(p)
    return Reliability(
        float(gaps), float(((p - y) ** 2).mean()), (hits / count.clamp(min=1)).tolist(),
        (sums / count.clamp(min=1)).tolist(), list(map(int, count)),
    )  # fmt: skip


def _fitted(evidence: Tensor, targets: Tensor, generator: torch.Generator) -> Calibration:
    """The head alone: penalised maximum likelihood in float64."""
    x, y = evidence.flatten(0, 1), targets.flatten().double()
    if len(x) > LARGEST:
        kept = torch.randperm(len(x), generator=generator)[:LARGEST]
        x, y = x[kept], y[kept]
    if not bool(torch.isfinite(x).all()):
        raise CalibrationError("the evidence of some validation images is not finite: has the training diverged?")
    if not 0 < y.sum() < len(y):
        raise CalibrationError(
            "too few labels are present in the validation images, or too many, to calibrate on: each half of the "
            "images needs labels of both kinds; add images to DATASETS.VAL"
        )
    x = x.double()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    w = _minimiser((x - mean) / std, y)
    empty = torch.zeros(0)
    return Calibration(mean, std, w[1:].clone(), float(w[0]), (), empty, empty, empty, None, None, 0)


def _minimiser(x: Tensor, y: Tensor) -> Tensor:
    """Bias and weights (1 + F,) of the smallest mean log loss plus penalty, which is convex: by Newton's method.

    Args:
        x: (n, F), float64.
        y: (n,), 0 or 1, both of them there.
    """
    x = torch.cat([torch.ones_like(x[:, :1]), x], 1)
    penalty = torch.full((x.shape[1],), PENALTY, dtype=x.dtype)
    penalty[0] = 0  # of the bias there is none

    def loss(w: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x @ w, y) + (penalty * w * w).sum()

    w = torch.zeros_like(penalty)
    for _ in range(STEPS):
        p = (x @ w).sigmoid()
        slope = x.T @ (p - y) / len(y) + 2 * penalty * w
        curvature = x.T @ (x * (p * (1 - p))[:, None]) / len(y) + torch.diag(2 * penalty)
        step = torch.linalg.solve(curvature, slope)
        now = loss(w)
        while step.abs().max() > FLAT and loss(w - step) > now:
            step = step / 2
        w = w - step
        if step.abs().max() <= FLAT:
            break
    return w


def _precision(wanted: str) -> float:
    """The number in "precision=0.9"."""
    name, _, number = wanted.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if name.strip() != "precision" or not 0 < value <= 1:
        raise CalibrationError(f"the threshold {wanted!r} is none: a number, best, or precision=0.9")
    return value
