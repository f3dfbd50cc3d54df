"""What a label looks like: prototypes from images, and how alike regions are to prototypes (TRM-ML, Eq. (7)-(9)).

B images, N positions, C labels, l vectors of a label's queue, S of all labels together, D joint width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parallel import rows_of_all

__all__ = ["MemoryBank", "Seen", "likeness", "most_energetic"]


class Seen(NamedTuple):
    """Vectors and what they show."""

    vectors: Tensor  # (S, D), of length 1
    labels: Tensor  # (S,), int64


def likeness(regions: Tensor, prototypes: Tensor) -> Tensor:
    """s, Eq. (8): cosines of the regions of each label and its prototypes, (B, C), float32.

    The mean of cosines with several prototypes, Eq. (9), is a product with the mean of these at length 1; the printed
    sum over the l prototypes is not divided by l.

    Args:
        regions: (B, C, D), of any norm.
        prototypes: (C, D), of length 1, or the mean of vectors of length 1.
    """
    with torch.autocast(regions.device.type, enabled=False):
        return (F.normalize(regions.float(), dim=-1) * prototypes.float()).sum(-1)


def most_energetic(energies: Tensor, features: Tensor, present: Tensor, *, count: int) -> Seen:
    """TopK(r_c) f, Eq. (7): of each label that an image has, what is at the positions with the highest energies.

    Image by image and label by label, the highest energy first.

    Args:
        energies: (B, C, N).
        features: (B, N, D).
        present: (B, C), bool, which labels an image is known to have.
        count: k, at most N.
    """
    image, label = present.nonzero(as_tuple=True)  # host-device sync
    best = energies[image, label].topk(count, dim=-1).indices  # (P, k)
    vectors = F.normalize(features[image[:, None], best].float(), dim=-1)  # (P, k, D)
    return Seen(vectors.flatten(0, 1), label.repeat_interleave(count))


class MemoryBank(nn.Module):
    """A queue of vectors for each label, first in, first out: the visual prototypes.

    Args:
        labels: C.
        length: l of each queue.
        width: D.
    """

    vectors: Tensor
    entered: Tensor

    def __init__(self, *, labels: int, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(labels, length, width))
        self.register_buffer("entered", torch.zeros(labels, dtype=torch.int64))  # so many since the beginning

    @property
    def full(self) -> Tensor:
        """Which queues are full: (C,), bool. A label is judged by its prototypes from then on."""
        return self.entered >= self.vectors.shape[1]

    def means(self) -> Tensor:
        """The mean of each queue, (C, D), shorter than 1; says nothing where a queue is not full."""
        return self.vectors.mean(1)

    def held(self) -> Seen:
        """A copy of all that full queues hold."""
        full = self.full
        vectors = self.vectors[full]  # (F, l, D); host-device sync
        labels = full.nonzero().flatten().repeat_interleave(vectors.shape[1])
        return Seen(vectors.flatten(0, 1), labels)

    @torch.no_grad()
    def push(self, seen: Seen) -> None:
        """Takes in what all processes have seen, in their order; what is oldest leaves."""
        vectors, labels = rows_of_all(seen.vectors), rows_of_all(seen.labels)
        length = self.vectors.shape[1]
        before = F.one_hot(labels, len(self.entered)).cumsum(0)  # (S, C), of each label up to each vector
        counts = torch.bincount(labels, minlength=len(self.entered))
        order = before.gather(1, labels[:, None])[:, 0] - 1  # (S,), among the vectors of the same label
        stays = order >= counts[labels] - length  # the others would leave at once
        slots = (self.entered[labels] + order) % length
        self.vectors[labels[stays], slots[stays]] = vectors[stays]
        self.entered += counts
