"""Training from what is computed of every image once, and kept in memory: where images are not augmented.

A step's batch then is rows of tensors, in the order of the loader that would read the images. What is kept lies in the
memory of the CPU, in each of several processes all of it, and batches go to the device as images would.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from tqdm import tqdm

from engine import memory
from engine.broken import warn_of_broken_images
from errors import UserError
from parallel import is_first

__all__ = ["Batch", "CacheError", "CachedLoader", "computed_once"]


class CacheError(UserError, MemoryError):
    """More than the memory that is available."""


class Batch(NamedTuple):
    """What a training step takes."""

    images: Any  # tensors, each with the images in its first dimension, as `Method.training_stem` gives them
    targets: Tensor  # (B, C) float32
    paths: list[str]
    known: Tensor | None  # (B, C) bool; None: all are


class CachedLoader:
    """Batches of a training loader with what was computed of its images in their place.

    Args:
        loader: a `TrainLoader`, whose order and data set are taken.
        computed: of all its images, what `computed_once` gives.
        pinned: batches lie in memory that a GPU copies from while the host goes on.
    """

    def __init__(self, loader: Any, computed: Any, *, pinned: bool = False) -> None:
        self.loader, self.dataset, self.computed, self.pinned = loader, loader.dataset, computed, pinned
        self.set_position = loader.set_position

    def __len__(self) -> int:
        """Batches that are left of the epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        data = self.dataset
        for drawn in self.loader.sampler:
            rows = torch.tensor([index for _, index in drawn])
            paths = [data.records.images[index] for _, index in drawn]
            known = None if data.known is None else data.known[rows]
            batch = Batch(_rows_of(self.computed, rows), data.targets[rows].float(), paths, known)
            yield tree_map_only(Tensor, Tensor.pin_memory, batch) if self.pinned else batch


@torch.no_grad()
def computed_once(
    compute: Callable[[Tensor], Any], loader: Any, *, device: torch.device, autocast: torch.dtype | None,
    progress_bar: bool = True,
) -> Any:  # fmt: skip
    """What `compute` makes of all images, on the CPU, in the order of the records.

    Args:
        compute: images (B, 3, H, W) to tensors with the images in their first dimension.
        loader: delivers every image of its `dataset` once, with `indices`.
        device: where images go.
        autocast: dtype of mixed precision; None for float32.
        progress_bar: shown on stderr.

    Raises:
        CacheError: after the first batch, if all of it is more than the memory that is available.
    """
    images, kept = len(loader.dataset), None
    bar = tqdm(loader, "images, once", disable=not (progress_bar and is_first()), unit="batch", leave=False)
    with bar, torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
        for batch in bar:
            found = compute(batch.images.to(device, non_blocking=True))
            if kept is None:
                _require_memory(sum(leaf[0].nbytes for leaf in _tensors(found)), images)
                kept = tree_map_only(Tensor, lambda part: part.new_empty(images, *part.shape[1:], device="cpu"), found)
            for whole, part in zip(_tensors(kept), _tensors(found), strict=True):
                whole[batch.indices] = part.to(whole.device)
    warn_of_broken_images(loader, "training images")
    return kept


def _tensors(found: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def _rows_of(found: Any, rows: Tensor) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor[rows], found)


def _require_memory(each: int, images: int) -> None:
    """Refuses bytes of each image that are too many; where the system does not tell what is available, nothing."""
    needed = each * images * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes of this machine
    available = memory.available()
    if available is not None and needed > available:
        raise CacheError(
            f"DATALOADER.CACHE would keep {needed / 1e9:.1f} GB of {images:,} images, and {available / 1e9:.1f} GB of "
            "memory are available: set it False, or train on fewer images (DATASETS.SUBSET) or smaller ones"
        )
