"""What a tagger answers."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

__all__ = ["Answer", "Tags", "charts", "picked"]


class Tags(NamedTuple):
    """The labels of one picture, the most probable first."""

    labels: tuple[str, ...]  # K
    probabilities: tuple[float, ...]  # in [0, 1]; with score="paper" they sum to 1 over all that were asked for
    maps: Tensor | None = None  # (K, h, w), where: in [0, probability], so that absent labels stay cold


class Answer(NamedTuple):
    """What images say of labels."""

    probabilities: Tensor  # (B, C)
    maps: Tensor | None  # (B, C, h, w)


def charts(weights: Tensor, probabilities: Tensor, grid: tuple[int, int]) -> Tensor:
    """Where labels are, (B, C, h, w), from the shares of regions (B, N, C): the largest stands for the probability."""
    shares = weights.transpose(1, 2)  # (B, C, N)
    return (shares / shares.amax(-1, keepdim=True) * probabilities[..., None]).unflatten(-1, grid).float()


def picked(
    names: Sequence[str], probabilities: Tensor, maps: Tensor | None, *, cuts: Tensor | None, top_k: int | None
) -> Tags:
    """The labels that pass, in descending order.

    Args:
        names: C labels.
        probabilities: (C,).
        maps: (C, h, w), if there are any.
        cuts: (C,), the least probability of each label.
        top_k: at most so many.
    """
    order = probabilities.argsort(descending=True, stable=True)
    if cuts is not None:
        order = order[probabilities[order] >= cuts[order]]
    if top_k is not None:
        order = order[:top_k]
    labels = tuple(names[k] for k in order.tolist())
    return Tags(labels, tuple(probabilities[order].tolist()), None if maps is None else maps[order])
