"""Images that stand in two lists: those of one protocol among those of another."""

from typing import NamedTuple

import torch
from torch import Tensor

from datasets.dataset import MultiLabelDataset
from datasets.loader import Batch

__all__ = ["Part", "part_of"]


class Part(NamedTuple):
    """Images of one protocol among those of another, so that one pass over the images serves both."""

    whole: str  # name of the other protocol
    place: Tensor  # (I,), int64, position of each image of the whole in the part's list; -1: not in it
    dataset: MultiLabelDataset  # of the part

    def of(self, batch: Batch) -> tuple[Tensor, Batch]:
        """Which rows of a batch of the whole are in the part, (b,) int64, and their batch, with the part's targets."""
        indices = self.place[batch.indices]
        rows = (indices >= 0).nonzero().squeeze(1)
        indices = indices[rows]
        targets = self.dataset.targets[indices].float()
        return rows, Batch(batch.images[rows], targets, [batch.paths[row] for row in rows], indices)


def part_of(dataset: MultiLabelDataset, whole: MultiLabelDataset, name: str) -> Part | None:
    """The images of a data set as a part of those of another one with the same transform; None where they are not."""
    images, all_images = dataset.records.images, whole.records.images
    position = {path: index for index, path in enumerate(images)}
    if position.keys() - set(all_images):
        return None
    return Part(name, torch.tensor([position.get(path, -1) for path in all_images]), dataset)
