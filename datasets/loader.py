"""Batches: the order of an epoch, and loaders that report a broken image in one line.

What a training batch holds is a function of (seed, epoch, position) alone: not of the number of
workers, of the batches before it, or of torch's global random state. So a resumed run goes on exactly.
"""

import os
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from datasets.dataset import MultiLabelDataset, Sample, Unreadable
from datasets.plan import Plan
from datasets.records import DataError

__all__ = [
    "WHOLE", "Batch", "EpochSampler", "Loader", "MultiLabelDataset", "Share", "TrainLoader", "cap", "test_loader",
    "train_loader",
]  # fmt: skip


class Batch(NamedTuple):
    """Images with their targets.

    `images` (B, 3, H, W) float32, normalised, or uint8 with a `plan` of what is to be done to them
    (`datasets.batched`); `targets` (B, C) float32, 0 or 1, in the order of the data
    set's `names`; `paths` as in the records; `indices` (B,) int64, positions in the records; `known` (B, C) bool,
    False where a target says nothing, or None where all are known.
    """

    images: Tensor
    targets: Tensor
    paths: list[str]
    indices: Tensor
    known: Tensor | None = None
    plan: Plan | None = None


class Share(NamedTuple):
    """The part of the work of one of several processes."""

    rank: int  # which process this is, from 0
    world_size: int  # how many there are


WHOLE = Share(0, 1)
SPARED = 120  # seconds that a worker lives on after SIGTERM, for the step under way and its checkpoint


class Collated(NamedTuple):
    """What a worker hands over; `batch` is None if no image could be read; `truncated` are paths."""

    batch: Batch | None
    unreadable: list[Unreadable]
    truncated: list[str]


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index): each epoch in an order of its own, a function of (seed, epoch).

    The pairs carry the epoch to workers that outlive it. The last images, too few for a batch, are left out
    (others in every epoch with `reshuffle`).

    Args:
        size: number of images.
        batch_size: images per batch.
        seed: of the order.
        reshuffle: False for the order of epoch 0 in every epoch, as in the release.
        share: of every batch, consecutive images; shares differ by one image where they cannot be equal.
    """

    def __init__(self, size: int, batch_size: int, *, seed: int, reshuffle: bool, share: Share = WHOLE) -> None:
        self.begin, self.end = (batch_size * i // share.world_size for i in (share.rank, share.rank + 1))
        self.size, self.batch_size, self.seed, self.reshuffle = size, batch_size, seed, reshuffle
        self.epoch, self.first_batch = 0, 0

    def __len__(self) -> int:
        """Batches that are left of the epoch."""
        return max(self.size // self.batch_size - self.first_batch, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch if self.reshuffle else 0)).permutation(self.size)
        for batch in range(self.first_batch, self.size // self.batch_size):
            chosen = order[batch * self.batch_size :][self.begin : self.end]
            yield [(self.epoch, int(index)) for index in chosen]


class Loader:
    """Iterates over batches of a data set.

    `dataset` is what it reads. Of the latest pass, in the order met, `skipped` lists the paths that were left out
    because they could not be read, and `truncated` those that were read as far as they go.

    Raises:
        DataError: while iterating, naming the file, if an image cannot be read and the data set does not
            skip those, or if none can be read.
    """

    def __init__(self, dataset: MultiLabelDataset, batches: DataLoader) -> None:
        self.dataset, self.batches = dataset, batches
        self.skipped: list[str] = []
        self.truncated: list[str] = []

    def __len__(self) -> int:
        """Batches of the next pass."""
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.skipped, self.truncated = [], []
        for batch, unreadable, truncated in self.batches:
            if unreadable and not self.dataset.skip_broken:
                raise DataError(unreadable[0].message)
            self.skipped += [image.path for image in unreadable]
            self.truncated += truncated
            if batch is not None:
                yield batch
        if len(self.skipped) == len(self.dataset):  # one of several processes has its share only
            raise DataError(f"none of the {len(self.skipped)} images can be read; {unreadable[0].message}")


class TrainLoader(Loader):
    """A loader that is told which epoch to deliver."""

    def __init__(self, dataset: MultiLabelDataset, batches: DataLoader, sampler: EpochSampler) -> None:
        super().__init__(dataset, batches)
        self.sampler = sampler

    def set_position(self, epoch: int, first_batch: int = 0) -> None:
        """Sets what the next pass delivers: this epoch (from 0 or 1), from this batch (from 0) on."""
        self.sampler.epoch, self.sampler.first_batch = epoch, first_batch

    def once(self) -> Loader:
        """All images in the order of the records, in batches of the same size, whichever process this is."""
        return test_loader(self.dataset, self.sampler.batch_size, self.batches.num_workers)


def train_loader(
    dataset: MultiLabelDataset, batch_size: int, workers: int, *, seed: int, reshuffle: bool, share: Share = WHOLE
) -> TrainLoader:
    """Shuffled batches, all of the same size, or a share of each; see `EpochSampler`.

    Args:
        dataset: made with a seed.
        batch_size: images per batch, of all processes together.
        workers: processes, 0 for none; capped at the number of processor cores.
        seed: of the order, not negative.
        reshuffle: whether each epoch has an order of its own.
        share: of this process.

    Raises:
        DataError: if there are fewer images than one batch takes, or processes than images of a batch, or an argument
            is out of range.
    """
    if batch_size < 1:
        raise DataError(f"SOLVER.IMS_PER_BATCH is {batch_size}; it has to be 1 or more")
    if seed < 0:
        raise DataError(f"SOLVER.SEED is {seed}; it has to be 0 or more")
    if len(dataset) < batch_size:
        raise DataError(
            f"{dataset.records.source}: {len(dataset)} training images are fewer than one batch; "
            f"SOLVER.IMS_PER_BATCH is {batch_size}"
        )
    if batch_size < share.world_size:
        raise DataError(
            f"SOLVER.IMS_PER_BATCH is {batch_size}, which leaves some of {share.world_size} processes without an "
            "image: it is the batch of all of them together"
        )
    sampler = EpochSampler(len(dataset), batch_size, seed=seed, reshuffle=reshuffle, share=share)
    batches = _batches(dataset, workers, batch_sampler=sampler, persistent_workers=cap(workers) > 0)
    return TrainLoader(dataset, batches, sampler)


def test_loader(dataset: MultiLabelDataset, batch_size: int, workers: int, share: Share = WHOLE) -> Loader:  # noqa: PT028 - no test
    """All images once, in the order of the records; the last batch may be smaller. Processes take batches in turn.

    Args:
        dataset: with a transform that is not random.
        batch_size: images per batch.
        workers: processes, 0 for none; capped at the number of processor cores.
        share: of this process; its batches are those that one process would have.

    Raises:
        DataError: if there are no images, or an argument is out of range.
    """
    if batch_size < 1:
        raise DataError(f"TEST.IMS_PER_BATCH is {batch_size}; it has to be 1 or more")
    if not len(dataset):
        raise DataError(f"{dataset.records.source}: no image to evaluate has any of the {len(dataset.names)} labels")
    starts = range(share.rank * batch_size, len(dataset), share.world_size * batch_size)
    mine = [range(start, min(start + batch_size, len(dataset))) for start in starts]
    return Loader(dataset, _batches(dataset, workers, batch_sampler=mine))


def _batches(dataset: MultiLabelDataset, workers: int, **how: Any) -> DataLoader:
    return DataLoader(
        dataset,
        num_workers=cap(workers),
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else every pass would draw from the global one
        worker_init_fn=_undisturbed,
        **how,
    )


def _undisturbed(_worker: int) -> None:
    """Lets the training end first: schedulers send its signals to every process of a job, and launchers once more.

    SIGTERM ends a worker in the end, so that one which hangs can be ended by the loader.
    """
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(SPARED))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def cap(workers: int) -> int:
    """No more processes than cores that this one may use.

    Raises:
        DataError: if the number is negative.
    """
    if workers < 0:
        raise DataError(f"DATALOADER.NUM_WORKERS is {workers}; it has to be 0 or more")
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return min(workers, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _collate(samples: list[Sample | Unreadable]) -> Collated:
    unreadable = [sample for sample in samples if isinstance(sample, Unreadable)]
    read = [sample for sample in samples if isinstance(sample, Sample)]
    if not read:
        return Collated(None, unreadable, [])
    images, hot, paths, indices, whole, known, drawn = zip(*read, strict=True)
    mask = None if known[0] is None else torch.stack(known)
    plan = None if drawn[0] is None else Plan.of(drawn, (images[0].shape[2], images[0].shape[1]))
    batch = Batch(torch.stack(images), torch.stack(hot), list(paths), torch.tensor(indices), mask, plan)
    return Collated(batch, unreadable, [path for path, complete in zip(paths, whole, strict=True) if not complete])
