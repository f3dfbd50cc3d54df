"""How well maps of labels point at the objects: measured where it is known which pixels show which object.

For each object, the map m of its label over N regions, o_i the share of region i that shows the object:

    pointing    a pixel of the object lies in the region of the highest value (mean over regions that share it)
    iou         of the object's pixels and those where the map, bilinear between regions' centres, is at least half its
                largest value
    mass        sum_i m_i o_i / sum_i m_i

and over all images and labels, of the N values of a map the largest, its peak:

    contrast    probability that the peak of a label in the image is above that of one that is not (AUC)

A constant map gives what chance does. Maps whose zero means nothing, as cosines, are brought to [0, 1] one by one for
iou and mass.

P objects, N regions on a grid of h x w, H x W pixels, C labels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tagging.maps import FEATURES, PLANS, Views

__all__ = ["CEILING", "METRICS", "ROWS", "Located", "Objects", "contrast", "located", "maps_of", "on_grid"]

METRICS = ("pointing", "iou", "mass")
CEILING = "the object on the grid"
ROWS = (
    *(f"cosines, {name}" for name in FEATURES), *(f"affinity, {name}" for name in FEATURES),
    *(f"plan, {name}" for name in PLANS),
)  # fmt: skip


class Objects(NamedTuple):
    """What a batch of images shows."""

    image: Tensor  # (P,), which of the batch
    label: Tensor  # (P,), which of the labels
    masks: Tensor  # (P, H, W), the object's share of each pixel


class Located(NamedTuple):
    """Values by object of one kind of map."""

    pointing: Tensor  # (P,)
    iou: Tensor
    mass: Tensor


def maps_of(views: Views) -> dict[str, Tensor]:
    """The maps (B, N, C) of ROWS."""
    groups: Sequence[Mapping[str, Tensor]] = (views.similarity, views.affinity, views.plans)
    return dict(zip(ROWS, (values for group in groups for values in group.values()), strict=True))


def on_grid(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """The share of each region that shows the object, (P, N), of its shares of pixels (P, H, W)."""
    return F.adaptive_avg_pool2d(masks, grid).flatten(1)


def located(maps: Tensor, masks: Tensor, grid: tuple[int, int], *, stretch: bool = False) -> Located:
    """All three of each object.

    Args:
        maps: (P, N).
        masks: (P, H, W), the object's share of each pixel.
        grid: rows and columns of the regions.
        stretch: bring every map to [0, 1] first, for iou and mass.
    """
    shown = on_grid(masks, grid)
    hits = _pointed(maps, shown)
    if stretch:
        low, high = maps.amin(1, keepdim=True), maps.amax(1, keepdim=True)
        maps = (maps - low) / (high - low).clamp(min=1e-12)
    return Located(hits, _overlap(maps, masks, grid), _share(maps, shown))


def _pointed(maps: Tensor, shown: Tensor) -> Tensor:
    """Whether the region of the highest value shows the object, (P,); of equal ones, how many do."""
    highest = (maps == maps.amax(1, keepdim=True)).float()
    return (highest * (shown > 0)).sum(1) / highest.sum(1)


def _overlap(maps: Tensor, masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Intersection over union, (P,), of half of the object's pixels on, and half of the map's maximum on."""
    fine = F.interpolate(maps.unflatten(1, grid)[:, None], masks.shape[1:], mode="bilinear")[:, 0]  # (P, H, W)
    inside, wanted = fine >= fine.amax((1, 2), keepdim=True) / 2, masks >= 0.5
    return (inside & wanted).sum((1, 2)) / (inside | wanted).sum((1, 2)).clamp(min=1)


def _share(maps: Tensor, shown: Tensor) -> Tensor:
    """The share of the map that lies on the object, (P,)."""
    return (maps * shown).sum(1) / maps.sum(1).clamp(min=1e-12)


def contrast(peaks: Tensor, present: Tensor) -> float:
    """How often the peak of a present label is above that of an absent one, ties half: the area under the ROC curve.

    Args:
        peaks: of any shape.
        present: of the same shape, bool; True and False both occur.
    """
    values, places = peaks.double().unique(return_inverse=True)
    hits = torch.bincount(places[present], minlength=len(values)).double()
    others = torch.bincount(places[~present], minlength=len(values)).double()
    below = others.cumsum(0) - others / 2  # absent labels below each value, those at it half
    return float((hits * below).sum() / (hits.sum() * others.sum()))
