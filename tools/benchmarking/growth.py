"""How cost grows with labels, regions and images: time and memory at places of curves, and exponents they follow."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from configs import with_overrides
from datasets import Protocol
from datasets.loader import Batch
from engine.evaluate import Row, evaluate
from model.ot_solver import sinkhorn
from tools.benchmarking.comparing import MEMORY, PROCESSOR, TIME
from tools.benchmarking.encoding import new_labels
from tools.benchmarking.measuring import Measurement, Setting, Took, free, peak, timed
from tools.benchmarking.models import BASE, SMALL, Built, build, label_names
from tools.benchmarking.one_image import random_labels, recognition
from tools.benchmarking.rounds import random_targets, train_round
from tools.benchmarking.solver import MOST, REG, TOL, problems

__all__ = ["CURVES", "OVER", "Curve", "exponent", "measure"]

OVER = ("labels", "regions", "images")
IMAGES = 8  # of a batch, where it is labels that grow
ENOUGH = 5.0  # seconds after which a place is measured no more
MOST_OF_IT = 0.8  # of the memory that is free
DECADE = 10  # an exponent is that of the last one


class Curve(NamedTuple):
    """What is measured at several places."""

    name: str
    over: str  # of OVER
    places: tuple[int, ...]
    make: Callable[[Built, int], Callable[[], Any]]  # the call for a place


def measure(setting: Setting) -> Iterator[Measurement]:
    """All curves; in a quick measurement the first places of a small model."""
    built = build(SMALL if setting.quick else BASE, setting)
    for curve in CURVES:
        per_place = 0.0  # MB of the place before, over its number
        for place in curve.places[:3] if setting.quick else curve.places:
            there = free(setting)
            if there is not None and place * per_place > MOST_OF_IT * there:
                said = f"would take about {place * per_place:,.0f} MB, and {there:,.0f} are free: left out"
                warnings.warn(f"{curve.name}, {place:,} {curve.over}: {said}", stacklevel=2)
                break
            for made in _at(curve, place, curve.make(built, place), setting):
                yield made
                per_place = made.values[0] / place if made.quantity == MEMORY else per_place


def exponent(points: Mapping[float, float]) -> float | None:
    """p of a cost that grows as place^p: least squares of the logarithms, over the last decade of places.

    Args:
        points: place -> cost, both positive; of a decade with fewer than three places the last three count. None if
            there are fewer.
    """
    last = sorted(points)
    last = [place for place in last if place * DECADE >= last[-1] or place in last[-3:]]
    if len(last) < 3:
        return None
    x, y = [math.log(place) for place in last], [math.log(points[place]) for place in last]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def _at(curve: Curve, place: int, run: Callable[[], Any], setting: Setting) -> Iterator[Measurement]:
    """Time and memory of a call; one that takes long is made once."""
    first: list[Took] = []
    taken = peak(lambda: first.append(timed(run, 1, setting)), setting)
    took = first if first[0].wall > ENOUGH else []
    while len(took) < setting.repeats and sum(one.wall for one in took) <= ENOUGH:
        took.append(timed(run, 1, setting))
    case = f"{curve.name}, by {curve.over}"
    yield Measurement(case, TIME, "s", [one.wall for one in took], place)
    if setting.device.type == "cpu":
        yield Measurement(case, PROCESSOR, "s", [one.processor for one in took], place)
    if taken is not None:
        yield Measurement(case, MEMORY, "MB", [taken], place)


def _recognised(built: Built, images: int, labels: int, side: int = 0) -> Callable[[], Any]:
    return recognition(built, images, random_labels(built, labels), (side, side) if side else None)


def _evaluated(built: Built, labels: int) -> Callable[[], Any]:
    """From a batch to metrics, with labels that are encoded already."""
    method, encoded = built.method.eval(), random_labels(built, labels)
    pixels, indices = built.images(IMAGES).cpu(), torch.arange(IMAGES)
    batch = Batch(pixels, random_targets(IMAGES, labels), list(map(str, range(IMAGES))), indices)
    asked: Any = Protocol("GZSL", encoded.names, [batch])  # type: ignore[arg-type]  # a list in place of a loader
    rows = [Row(method.title, lambda _: encoded, method)]
    return partial(evaluate, rows, [asked], device=built.device, autocast=None, progress_bar=False)


def _trained(built: Built, images: int, labels: int, side: int = 0) -> Callable[[], Any]:
    """A step of the trainer."""
    height, width = (side, side) if side else built.cfg.INPUT.SIZE_TRAIN
    own = ["SOLVER.IMS_PER_BATCH", str(images), "INPUT.SIZE_TRAIN", f"({height}, {width})"]
    cfg = with_overrides(built.cfg, own)
    return train_round(built.method, cfg, label_names(labels), built.device, steps=1)


def _solved(built: Built, images: int, regions: int, labels: int) -> Callable[[], Any]:
    made = problems((images, regions, labels), built.device)
    return partial(sinkhorn, *made, reg=REG, max_iter=MOST, tol=TOL)


def _side(built: Built, regions: int) -> int:
    """Pixels of a square image with so many regions."""
    return math.isqrt(regions) * built.towers.visual.patch_size[0]


LABELS = (10, 100, 1_000, 10_000, 100_000)
REGIONS = tuple(side**2 for side in (7, 10, 14, 20, 28, 40))
BATCH = (1, 2, 4, 8, 16, 32)
CURVES: Sequence[Curve] = (
    Curve("encoding labels", "labels", LABELS, lambda built, labels: new_labels(built, labels)),
    Curve("training step, 1 image", "labels", LABELS[:4], lambda built, labels: _trained(built, 1, labels)),
    Curve("one image", "labels", LABELS, lambda built, labels: _recognised(built, 1, labels)),
    Curve(f"evaluation, {IMAGES} images", "labels", LABELS, _evaluated),
    Curve(f"solver, {IMAGES} images", "labels", LABELS, lambda built, labels: _solved(built, IMAGES, 196, labels)),
    Curve("training step, 1 image", "regions", REGIONS, lambda b, regions: _trained(b, 1, 48, _side(b, regions))),
    Curve("one image", "regions", REGIONS, lambda b, regions: _recognised(b, 1, 65, _side(b, regions))),
    Curve(f"solver, {IMAGES} images", "regions", REGIONS, lambda built, regions: _solved(built, IMAGES, regions, 65)),
    Curve("training step, 48 labels", "images", BATCH, lambda built, images: _trained(built, images, 48)),
    Curve("scoring, 65 labels", "images", BATCH, lambda built, images: _recognised(built, images, 65)),
    Curve("solver, 65 labels", "images", BATCH, lambda built, images: _solved(built, images, 196, 65)),
)
