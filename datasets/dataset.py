"""Single images of a list with their targets, augmented under a random state of their own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from datasets.batched import BatchedAugmentation
from datasets.images import MOST_PIXELS, open_image, open_truncated
from datasets.pack import Pack, Packed
from datasets.plan import Drawn
from datasets.records import DataError, Records
from datasets.splits import known, targets
from datasets.transforms import Transform

__all__ = ["MultiLabelDataset", "Sample", "Unreadable"]


class Sample(NamedTuple):
    """One image (3, H, W) of a batch, its targets (C,), path, position in the records, and whether it was all there."""

    image: Tensor
    targets: Tensor
    path: str
    index: int  # type: ignore[assignment]  # in place of tuple.index; nobody searches in a sample
    whole: bool
    known: Tensor | None = None  # (C,) bool, where the targets are known; None: all are
    drawn: Drawn | None = None  # what is left for the batch to do to the image


class Unreadable(NamedTuple):
    """What stands in for a sample: an exception raised in a worker would reach the user as a traceback."""

    path: str
    message: str


class MultiLabelDataset(Dataset):
    """Images and targets of records.

    Args:
        records: which images.
        names: the C labels of the targets, in this order; others are left out.
        transform: to (3, H, W), from PIL.
        root: folder of the images.
        seed: of the augmentation, for items (epoch, index); None where nothing is random.
        augment: draws what happens to an image in its batch, and does it there; `transform` only resizes then.
        pack: where images are looked for before their files are, made as `transform` makes them.
        skip_broken: whether a loader leaves out images that cannot be read, or stops.
        read_truncated: whether files that are cut short are read as far as they go, or cannot be read.
        rotate: whether EXIF orientation is applied, see `open_image`.
        most_pixels: of an image, likewise.
    """

    def __init__(
        self,
        records: Records,
        names: Sequence[str],
        transform: Transform,
        root: str,
        *,
        seed: int | None = None,
        augment: BatchedAugmentation | None = None,
        pack: Pack | None = None,
        skip_broken: bool = False,
        read_truncated: bool = False,
        rotate: bool = False,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        self.records, self.names, self.transform, self.root = records, tuple(names), transform, root
        self.seed, self.augment, self.pack = seed, augment, pack
        self.rotate, self.most_pixels = rotate, most_pixels
        self.skip_broken, self.read_truncated = skip_broken, read_truncated
        self.targets = targets(records, names)  # (I, C) uint8
        self.known = known(records, names)  # (I, C) bool, or None where all is known

    def __len__(self) -> int:
        return len(self.records.images)

    def __getitem__(self, item: int | tuple[int, int]) -> Sample | Unreadable:
        """The sample at an index, or at (epoch, index) with a seed: then the same one on every call."""
        epoch, index = item if isinstance(item, tuple) else (0, item)
        path = self.records.images[index]
        known = None if self.known is None else self.known[index]
        try:
            with self._seeded(epoch, index):
                image, size, whole = self._packed(path) or self._transformed(path)
                drawn = None if self.augment is None else self.augment.draw(size)
        except DataError as error:
            return Unreadable(path, str(error))
        return Sample(image, self.targets[index].float(), path, index, whole, known, drawn)

    def _packed(self, path: str) -> Packed | None:
        if self.pack is None:
            return None
        return self.pack.find(path, read_truncated=self.read_truncated, most_pixels=self.most_pixels)

    def _transformed(self, path: str) -> Packed:
        image, whole = self.opened(path)
        return Packed(self.transform(image), image.size, whole)

    def opened(self, path: str) -> tuple[Image, bool]:
        """The image of a file, and whether all of it was there.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            return open_image(path, self.root, rotate=self.rotate, most_pixels=self.most_pixels), True
        except DataError:
            if not self.read_truncated:
                raise
            return open_truncated(path, self.root, rotate=self.rotate, most_pixels=self.most_pixels), False

    @contextmanager
    def _seeded(self, epoch: int, index: int) -> Iterator[None]:
        """Torch's random state is that of the image inside, and what it was again after it."""
        if self.seed is None:
            yield
            return
        state = np.random.SeedSequence((self.seed, epoch, index)).generate_state(1, np.uint64)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(state[0]))  # torch.manual_seed would also reset the GPU's
            yield
