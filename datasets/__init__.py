"""Files to tensors: the composition root of the data, the only reader of `cfg` in this folder.

What it composes is imported on use: other libraries look for a package of this name, and find out fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from datasets.loader import Loader, TrainLoader
    from datasets.records import Records
    from datasets.splits import Vocabulary

__all__ = ["Protocol", "TestData", "TrainData", "build_test", "build_train"]


class TrainData(NamedTuple):
    """`loader` delivers targets (B, C) over `vocabulary.seen`."""

    vocabulary: Vocabulary
    loader: TrainLoader


class Protocol(NamedTuple):
    """Images and the labels they are asked for: `loader` delivers targets (B, C) over `names`."""

    names: tuple[str, ...]
    loader: Loader


class TestData(NamedTuple):
    """`protocols` are "ZSL", over `vocabulary.unseen`, and "GZSL", over `vocabulary.all`."""

    __test__ = False  # pytest: not a test class

    vocabulary: Vocabulary
    protocols: dict[str, Protocol]


def build_train(cfg: CfgNode) -> TrainData:
    """Training images with their seen labels; images without any stay in and contribute negatives.

    Raises:
        DataError: in one line that names the file or the key.
    """
    from datasets.loader import MultiLabelDataset, train_loader
    from datasets.records import read_records
    from datasets.splits import vocabulary
    from datasets.transforms import train_transform

    folder, root = _image_folder(cfg), _root(cfg)
    records = read_records(cfg.DATASETS.TRAIN, root)
    words = vocabulary(records, read_records(cfg.DATASETS.TEST, root), _zsl_records(cfg))
    transform = train_transform(
        size=cfg.INPUT.SIZE_TRAIN,
        flip=cfg.INPUT.PROB,
        erase=cfg.INPUT.RE_PROB,
        padding=cfg.INPUT.PADDING,
        aug_prob=cfg.INPUT.AUG_PROB,
        crop=cfg.INPUT.CROP,
        blur=cfg.INPUT.BLUR,
        contrast=cfg.INPUT.CONTRAST,
        affine=cfg.INPUT.AFFINE,
        noise=cfg.INPUT.NOISE,
        multiply=cfg.INPUT.MULTIPLY,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
    )
    dataset = MultiLabelDataset(_first(cfg, records), words.seen, transform, folder, seed=cfg.SOLVER.SEED)
    loader = train_loader(
        dataset,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATALOADER.NUM_WORKERS,
        seed=cfg.SOLVER.SEED,
        reshuffle=cfg.DATALOADER.RESHUFFLE,
    )
    return TrainData(words, loader)


def build_test(cfg: CfgNode, split: str) -> TestData:
    """Images of a split under both protocols.

    DATASETS.TRAIN is read for its classes only; where the file is missing, DATASETS.TEST_ZSL is enough.
    The images of ZSL are those of DATASETS.TEST_ZSL for "test" if it is set, else those of the split with an
    unseen label. The images of GZSL are all of the split.

    Args:
        cfg: the configuration.
        split: "test" or "val".

    Raises:
        DataError: in one line that names the file or the key.
    """
    from datasets.loader import MultiLabelDataset, test_loader
    from datasets.records import DataError, read_records
    from datasets.splits import restrict, vocabulary
    from datasets.transforms import test_transform

    sources = {"test": cfg.DATASETS.TEST, "val": cfg.DATASETS.VAL}
    if split not in sources:
        raise DataError(f"there is no split {split!r}; TEST.SPLIT is one of {', '.join(sources)}")
    if not sources[split]:
        raise DataError(f"DATASETS.{split.upper()} is empty: set it to an annotation file, or choose another split")
    folder, zsl = _image_folder(cfg), _zsl_records(cfg)
    records = read_records(sources[split], _root(cfg))
    words = vocabulary(_train_records(cfg, optional=zsl is not None), records, zsl)
    unseen = zsl if zsl and split == "test" else restrict(records, words.unseen, drop_empty=True)
    transform = test_transform(size=cfg.INPUT.SIZE_TEST, mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)

    def protocol(images: Records, names: tuple[str, ...]) -> Protocol:
        chosen = _first(cfg, images)
        dataset = MultiLabelDataset(chosen, names, transform, folder, skip_broken=cfg.DATALOADER.SKIP_BROKEN)
        return Protocol(names, test_loader(dataset, cfg.TEST.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS))

    return TestData(words, {"ZSL": protocol(unseen, words.unseen), "GZSL": protocol(records, words.all)})


def _first(cfg: CfgNode, records: Records) -> Records:
    """The images of a list that DATASETS.SUBSET leaves."""
    from datasets.records import DataError

    if cfg.DATASETS.SUBSET < 0:
        raise DataError(f"DATASETS.SUBSET is {cfg.DATASETS.SUBSET}; it has to be 0 or more")
    first = slice(cfg.DATASETS.SUBSET or None)
    return records._replace(images=records.images[first], labels=records.labels[first])


def _root(cfg: CfgNode) -> str:
    return os.path.expanduser(cfg.DATASETS.ROOT_DIR)


def _image_folder(cfg: CfgNode) -> str:
    """The folder of the images, checked."""
    from datasets.records import DataError

    root = _root(cfg)
    if root and not os.path.isdir(root):
        raise DataError(f"there is no folder {root!r}: set DATASETS.ROOT_DIR to the folder of the data set")
    folder = os.path.join(root, os.path.expanduser(cfg.DATASETS.IMAGE_DIR)) or os.curdir
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {folder!r}: set DATASETS.IMAGE_DIR to the folder of the images")
    return folder


def _zsl_records(cfg: CfgNode) -> Records | None:
    from datasets.records import read_records

    return read_records(cfg.DATASETS.TEST_ZSL, _root(cfg)) if cfg.DATASETS.TEST_ZSL else None


def _train_records(cfg: CfgNode, *, optional: bool) -> Records | None:
    """The training records, or None if they are missing and may be."""
    from datasets.records import MissingFileError, read_records

    try:
        return read_records(cfg.DATASETS.TRAIN, _root(cfg))
    except MissingFileError:
        if optional:
            return None
        raise
