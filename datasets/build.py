"""Files to tensors: the composition root of the data, the only reader of `cfg` in this folder.

What it composes is imported on use, so that `import datasets` is quick: other libraries try it, for another package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from datasets.compose import Splits
    from datasets.labels import LabelNotes
    from datasets.loader import Loader, TrainLoader
    from datasets.pack import Pack
    from datasets.parts import Part
    from datasets.records import Records
    from datasets.sources import Reading
    from datasets.splits import Vocabulary
    from datasets.transforms import Prepared

__all__ = [
    "Protocol", "TestData", "TrainData", "build_splits", "build_test", "build_train", "evaluated", "identities",
    "image_folder",
]  # fmt: skip

AUTO = -1.0  # what VAL_FRACTION auto is


class TrainData(NamedTuple):
    """`loader` delivers targets (B, C) over `vocabulary.seen`."""

    vocabulary: Vocabulary
    loader: TrainLoader


class Protocol(NamedTuple):
    """Images and the labels they are asked for: `loader` delivers targets (B, C) over `labels`."""

    name: str  # ZSL or GZSL
    labels: tuple[str, ...]
    loader: Loader
    task: str = "multi-label"  # what is measured (`engine/evaluators.py`)
    part: Part | None = None  # where its images are among those of another protocol


class TestData(NamedTuple):
    """`protocols` are "ZSL", over `vocabulary.unseen`, and "GZSL", over `vocabulary.all`.

    "ZSL" is absent where no image can have an unseen label.
    """

    vocabulary: Vocabulary
    protocols: dict[str, Protocol]


TestData.__test__ = False  # type: ignore[attr-defined]  # pytest's mark of what is no test class, and no field


def build_splits(cfg: CfgNode, *, train_needed: bool = True, trained_on: Sequence[str] = ()) -> Splits:
    """The lists of images and the labels, from annotation files or cut from one.

    Args:
        cfg: the configuration.
        train_needed: False for evaluation, which does without the training list where DATASETS.TEST_ZSL, or
            DATASETS.SEEN or UNSEEN, or `trained_on` says which labels are unseen.
        trained_on: the seen labels of a checkpoint; what decides where nothing else does.

    Raises:
        DataError: in one line that names the file or the key.
    """
    from datasets.choice import LabelChoice
    from datasets.compose import compose
    from datasets.labels import read_names
    from datasets.spelling import with_one_case
    from datasets.thinning import told

    image_folder(cfg)  # a wrong ROOT_DIR says more than each file that is not in it
    notes = _label_notes(cfg)
    reading = _reading(cfg, notes)
    choice = LabelChoice(
        read_names(tuple(cfg.DATASETS.SEEN), reading.root, "DATASETS.SEEN"),
        read_names(tuple(cfg.DATASETS.UNSEEN), reading.root, "DATASETS.UNSEEN"),
        cfg.DATASETS.CHOOSE,
        cfg.DATASETS.UNSEEN_FRACTION,
        cfg.DATASETS.SPLIT_SEED,
    )
    test, zsl = reading.read(cfg.DATASETS.TEST), reading.read(cfg.DATASETS.TEST_ZSL)
    labels_known = bool(zsl or choice.seen or choice.unseen or trained_on)
    train = reading.read_training(cfg.DATASETS.TRAIN, optional=not train_needed and test is not None and labels_known)
    merged = with_one_case(
        (train, reading.read(cfg.DATASETS.VAL), test, zsl), merge=cfg.DATASETS.MERGE_CASE, preferred=trained_on
    )
    names = merged.names
    splits = compose(
        *merged.lists,
        choice=choice._replace(seen=_respelt(choice.seen, names), unseen=_respelt(choice.unseen, names)),
        val_fraction=None if cfg.DATASETS.VAL_FRACTION == AUTO else cfg.DATASETS.VAL_FRACTION,
        test_fraction=cfg.DATASETS.TEST_FRACTION,
        seed=cfg.DATASETS.SPLIT_SEED,
        texts={names.get(label, label): text for label, text in notes.texts.items()},
        trained_on=trained_on,
    )
    notes = notes._replace(labels=frozenset(_respelt(tuple(notes.labels), names)))
    splits = splits._replace(notes=(*splits.notes, *_unused(cfg, notes, splits)))
    if splits.train is None:
        return splits
    known, said = told(splits.train, keep_unknown=cfg.DATASETS.UNKNOWN == "keep")
    return splits._replace(train=known, notes=(*splits.notes, *said))


def build_train(cfg: CfgNode, splits: Splits | None = None, *, share: tuple[int, int] = (0, 1)) -> TrainData:
    """Training images with their seen labels; images without any stay in and contribute negatives.

    Args:
        cfg: the configuration.
        splits: what `build_splits` gave; None: it is called.
        share: which of how many processes this is, each of which gets a part of every batch.

    Raises:
        DataError: in one line that names the file or the key.
    """
    from datasets.batched import BatchedAugmentation
    from datasets.loader import MultiLabelDataset, Share, train_loader
    from datasets.transforms import Prepared, Transform, in_workers, resized_only, test_transform, training_steps

    folder = image_folder(cfg)
    splits = splits or build_splits(cfg)
    steps = training_steps(
        size=cfg.INPUT.SIZE_TRAIN,
        flip=cfg.INPUT.PROB,
        erase=cfg.INPUT.RE_PROB,
        padding=cfg.INPUT.PADDING,
        aug_prob=cfg.INPUT.AUG_PROB,
        crop=cfg.INPUT.CROP,
        blur=cfg.INPUT.BLUR,
        contrast=cfg.INPUT.CONTRAST,
        affine=cfg.INPUT.AFFINE,
        rotation=cfg.INPUT.ROTATION,
        noise=cfg.INPUT.NOISE,
        multiply=cfg.INPUT.MULTIPLY,
        per_channel=cfg.INPUT.PER_CHANNEL,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
    )
    later = cfg.INPUT.AUGMENT and cfg.DATALOADER.AUGMENT_ON == "device"
    transform: Transform
    if not cfg.INPUT.AUGMENT:
        transform = test_transform(size=cfg.INPUT.SIZE_TRAIN, mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)
    else:
        transform = resized_only(steps) if later else in_workers(steps)
    assert splits.train is not None  # only an evaluation does without
    records = _first(cfg, splits.train)
    pack = _pack(cfg, "train", transform) if isinstance(transform, Prepared) else None  # else augmented at full size
    _require_images(records, folder, pack)
    dataset = MultiLabelDataset(
        records,
        splits.vocabulary.seen,
        transform,
        folder,
        seed=cfg.SOLVER.SEED,
        augment=BatchedAugmentation(steps) if later else None,
        pack=pack,
        read_truncated=cfg.DATALOADER.READ_TRUNCATED,
        rotate=cfg.INPUT.EXIF_ROTATION,
        most_pixels=cfg.INPUT.MAX_PIXELS,
    )
    loader = train_loader(
        dataset,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.DATALOADER.NUM_WORKERS,
        seed=cfg.SOLVER.SEED,
        reshuffle=cfg.DATALOADER.RESHUFFLE,
        share=Share(*share),
    )
    return TrainData(splits.vocabulary, loader)


def build_test(cfg: CfgNode, split: str, splits: Splits | None = None, *, share: tuple[int, int] = (0, 1)) -> TestData:
    """Images of a split under both protocols.

    The images of ZSL are those of DATASETS.TEST_ZSL for "test" if it is set, else those of the split with an
    unseen label; where none has one, as in validation images cut from a benchmark's training list, there is no
    ZSL. The images of GZSL are all of the split.

    Args:
        cfg: the configuration.
        split: "test" or "val".
        splits: what `build_splits` gave; None: it is called.
        share: which of how many processes this is, which take batches in turn.

    Raises:
        DataError: in one line that names the file or the key.
    """
    from datasets.loader import MultiLabelDataset, Share, test_loader
    from datasets.parts import part_of
    from datasets.records import DataError
    from datasets.splits import restrict
    from datasets.transforms import test_transform

    if split not in ("test", "val"):
        raise DataError(f"there is no split {split!r}; TEST.SPLIT is one of test, val")
    folder = image_folder(cfg)
    splits = splits or build_splits(cfg, train_needed=False)
    labels, records = splits.vocabulary, splits.test if split == "test" else splits.val
    if records is None:
        raise DataError("DATASETS.VAL is empty: set it to an annotation file, or DATASETS.VAL_FRACTION")
    listed = splits.test_zsl if split == "test" else None
    unseen = listed or restrict(records, labels.unseen, drop_empty=True)
    if any(restrict(records, labels.all, drop_empty=False).unknown):
        raise DataError(
            f"{records.source}: the metrics need every label of an image, and some are not known (-1): leave such "
            "images out, or set DATASETS.UNKNOWN absent"
        )
    transform = test_transform(size=cfg.INPUT.SIZE_TEST, mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)
    pack = _pack(cfg, "test", transform)

    def protocol(name: str, images: Records, names: tuple[str, ...]) -> Protocol:
        chosen = _first(cfg, images)
        _require_images(chosen, folder, pack, needed=not cfg.DATALOADER.SKIP_BROKEN)
        dataset = MultiLabelDataset(
            chosen,
            names,
            transform,
            folder,
            pack=pack,
            skip_broken=cfg.DATALOADER.SKIP_BROKEN,
            read_truncated=cfg.DATALOADER.READ_TRUNCATED,
            rotate=cfg.INPUT.EXIF_ROTATION,
            most_pixels=cfg.INPUT.MAX_PIXELS,
        )
        loader = test_loader(dataset, cfg.TEST.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS, Share(*share))
        return Protocol(name, names, loader)

    # A test file without an image for the unseen labels is a mistake; of images that were cut off it may happen.
    has_zsl = unseen.images or (split == "test" and labels.unseen and cfg.DATASETS.TEST)
    zsl = protocol("ZSL", unseen, labels.unseen) if has_zsl else None
    gzsl = protocol("GZSL", records, labels.all)
    if zsl is None:
        return TestData(labels, {"GZSL": gzsl})
    # Images that wait for the last one of their batch are solved otherwise in another batch.
    part = part_of(zsl.loader.dataset, gzsl.loader.dataset, gzsl.name) if cfg.MODEL.OT_STOP == "image" else None
    return TestData(labels, {"ZSL": zsl._replace(part=part), "GZSL": gzsl})


def evaluated(cfg: CfgNode, data: TestData) -> list[Protocol]:
    """The protocols that TEST.PROTOCOLS asks for, ZSL before GZSL.

    Raises:
        DataError: if it names one that there is not.
    """
    from datasets.records import DataError

    asked = cfg.TEST.PROTOCOLS or tuple(data.protocols)
    if unknown := [name for name in asked if name not in data.protocols]:
        raise DataError(f"TEST.PROTOCOLS names {unknown[0]!r}; there are {', '.join(data.protocols)}")
    return [protocol for name, protocol in data.protocols.items() if name in asked]


def identities(protocols: Iterable[Protocol]) -> dict[str, dict[str, Any]]:
    """Counts of images and labels, and a fingerprint of both, by protocol: the same wherever the images lie."""
    from datasets.compose import fingerprint

    by_protocol = {}
    for protocol in protocols:
        records = protocol.loader.dataset.records
        by_protocol[protocol.name] = {
            "images": len(records.images), "labels": len(protocol.labels),
            "fingerprint": fingerprint(records, protocol.labels),
        }  # fmt: skip
    return by_protocol


def image_folder(cfg: CfgNode) -> str:
    """The folder of the images.

    Raises:
        DataError: if it is not there.
    """
    from datasets.sources import below, require_folder

    if cfg.DATASETS.ROOT_DIR:
        require_folder(below(cfg.DATASETS.ROOT_DIR, ""), "ROOT_DIR", "data set")
    return require_folder(below(cfg.DATASETS.ROOT_DIR, cfg.DATASETS.IMAGE_DIR) or os.curdir, "IMAGE_DIR", "images")


def _first(cfg: CfgNode, records: Records) -> Records:
    """The images of a list that DATASETS.SUBSET leaves."""
    return records.rows(range(len(records.images))[: cfg.DATASETS.SUBSET or None])


def _pack(cfg: CfgNode, part: str, transform: Prepared) -> Pack | None:
    """The packed images of training ("train") or evaluation ("test"), if there is a pack."""
    from datasets.pack import Pack, preparation
    from datasets.sources import below

    if not cfg.DATASETS.PACK:
        return None
    folder = os.path.join(below(cfg.DATASETS.ROOT_DIR, cfg.DATASETS.PACK), part)
    return Pack.open(folder, preparation(transform.how, rotate=cfg.INPUT.EXIF_ROTATION), transform.finish)


def _require_images(records: Records, folder: str, pack: Pack | None, *, needed: bool = True) -> None:
    """Looks for every image, in the pack or else, where they are `needed`, on the disk."""
    from datasets.images import require_images

    if pack is not None:
        pack.require_current(records.images, folder)
    if needed:
        require_images(records.images if pack is None else pack.missing(records.images), folder)


def _respelt(labels: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names.get(label, label) for label in labels))


def _reading(cfg: CfgNode, notes: LabelNotes) -> Reading:
    from datasets.sources import Reading, below

    return Reading(
        root=below(cfg.DATASETS.ROOT_DIR, ""),
        images=image_folder(cfg),
        separator=cfg.DATASETS.SEPARATOR,
        empty_cell=cfg.DATASETS.EMPTY_CELL,
        unknown=cfg.DATASETS.UNKNOWN,
        known=cfg.DATASETS.KNOWN,
        known_seed=cfg.DATASETS.KNOWN_SEED,
        skip_missing=cfg.DATASETS.SKIP_MISSING,
        synonyms=notes.synonyms,
    )


def _label_notes(cfg: CfgNode) -> LabelNotes:
    from pathlib import Path

    from datasets.labels import LabelNotes, read_labels
    from datasets.sources import below

    if not cfg.DATASETS.LABELS:
        return LabelNotes({}, {}, frozenset())
    path = Path(below(cfg.DATASETS.ROOT_DIR, cfg.DATASETS.LABELS))
    return read_labels(path if path.is_file() else Path(below("", cfg.DATASETS.LABELS)), cfg.MODEL.TEMPLATE)


def _unused(cfg: CfgNode, notes: LabelNotes, splits: Splits) -> list[str]:
    """A note on labels of DATASETS.LABELS that no list has."""
    from datasets.records import first_few

    unknown = notes.labels - set(splits.vocabulary.all)
    return [f"{cfg.DATASETS.LABELS}: {first_few(unknown)} neither seen nor unseen here"] if unknown else []
