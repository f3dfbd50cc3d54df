"""Many labels on many pictures in bounded memory: answers in blocks, and the best pictures of each label so far.

I pictures, C labels, K kept.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tagging.evidence import Asked, Gallery
from tagging.tagger import Tagger

__all__ = ["Best", "Block", "blocks"]

NUMBERS = 2**18  # (pictures, regions, labels) of a block: larger ones leave the cache and are slower
LABELS = 256  # of a block, at most


class Block(NamedTuple):
    """What some pictures say of some labels."""

    pictures: slice
    labels: slice
    probabilities: Tensor  # (pictures, labels), float32, on the CPU


def blocks(tagger: Tagger, gallery: Gallery, asked: Asked) -> Iterator[Block]:
    """Every picture of a gallery and every label once; pictures in their order for any label.

    Raises:
        CalibrationError: if the tagger is not calibrated.
    """
    pictures, regions = gallery.regions.shape[:2]
    width = min(LABELS, len(asked.names))
    height = max(1, NUMBERS // (regions * width))
    for rows in _slices(pictures, height):
        few = _moved(gallery, rows, asked.text)
        for columns in _slices(len(asked.names), width):
            some = Asked(asked.names[columns], asked.text[columns], asked.anchor[columns])
            yield Block(rows, columns, tagger.ask(few, some).probabilities.cpu())


class Best:
    """The K most probable pictures of each of C labels, of the blocks that were shown.

    Of pictures with one probability, the one that was shown first comes first.

    Attributes:
        probabilities: (C, K), descending; -1 where fewer were shown.
        places: (C, K), int64, of the pictures; -1 likewise.
    """

    def __init__(self, labels: int, kept: int) -> None:
        self.probabilities = torch.full((labels, kept), -1.0)
        self.places = torch.full((labels, kept), -1, dtype=torch.int64)

    def show(self, block: Block, first: int) -> None:
        """Takes note of a block, whose slice of pictures is counted from the picture `first`."""
        places = torch.arange(first + block.pictures.start, first + block.pictures.stop)
        known, seen = self.probabilities[block.labels], self.places[block.labels]
        merged = torch.cat([known, block.probabilities.T], 1)
        merged_places = torch.cat([seen, places.expand(len(seen), -1)], 1)
        values, order = merged.sort(dim=1, descending=True, stable=True)
        kept = known.shape[1]
        self.probabilities[block.labels] = values[:, :kept]
        self.places[block.labels] = merged_places.gather(1, order[:, :kept])


def _moved(gallery: Gallery, rows: slice, like: Tensor) -> Gallery:
    """Some pictures, on the device and in the precision of the labels."""
    tensors = [t[rows].to(like.device, like.dtype if t.is_floating_point() else t.dtype) for t in gallery[:-1]]
    return Gallery._make([*tensors, gallery.grid])


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))
