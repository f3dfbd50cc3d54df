"""Decodes and resizes the images of a configuration once, so that no training and no test has to do it again.

    python tools/pack_images.py configs/coco.yml --out /fast/coco DATASETS.ROOT_DIR /data/coco

Training images go to OUT/train, those of validation and test to OUT/test, at the sizes that the configuration has for
them (151 KB each for 224 x 224 pixels); DATASETS.PACK OUT reads them. What is packed already is left out, so the same
command goes on where it was stopped and adds new images. Exit code 1 if images cannot be read; they are named and left
to the training, which will meet them as it would without a pack. docs/data.md, Feeding a GPU.
"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from yacs.config import CfgNode

from configs import load_config
from datasets import build_splits, build_test, build_train, pack
from datasets.dataset import MultiLabelDataset, Unreadable
from datasets.loader import cap
from datasets.pack import Entry, Pack, PackError, checksum, file_bytes, preparation
from datasets.records import DataError
from datasets.transforms import Prepared
from engine import cli
from engine.atomic import atomic_write, make_folder
from engine.claim import claimed

PART = 256  # images
# What is packed is what a training with these would read of its files.
READING = ("DATASETS.PACK", "", "DATALOADER.AUGMENT_ON", "device", "SOLVER.IMS_PER_BATCH", "1")


class Made(NamedTuple):
    """An image as it is packed."""

    name: str
    pixels: np.ndarray  # (3, H, W) uint8
    entry: Entry


class Making(Dataset):
    """The named images of a data set."""

    def __init__(self, dataset: MultiLabelDataset, transform: Prepared, names: Sequence[str]) -> None:
        self.dataset, self.transform, self.names = dataset, transform, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Made | Unreadable:
        name = self.names[index]
        try:
            image, whole = self.dataset.opened(name)
        except DataError as error:
            return Unreadable(name, str(error))
        pixels = np.ascontiguousarray(self.transform.shrink(image).numpy())
        size = file_bytes(name, self.dataset.root) or 0
        return Made(name, pixels, Entry(size, *image.size, whole, checksum(pixels)))


def image_sets(cfg: CfgNode, only: str | None) -> dict[str, list[MultiLabelDataset]]:
    """What trains, and what validates and tests, by their folders."""
    splits = build_splits(cfg, train_needed=only != "test")
    found: dict[str, list[MultiLabelDataset]] = {}
    if only != "test":
        found["train"] = [build_train(cfg, splits).loader.dataset]
    if only != "train":
        tests = [build_test(cfg, split, splits) for split in ("val", "test") if getattr(splits, split) is not None]
        found["test"] = [protocol.loader.dataset for test in tests for protocol in test.protocols.values()]
    return found


def extend(folder: Path, sets: Sequence[MultiLabelDataset], workers: int) -> list[str]:
    """Adds images that are not there to the pack of a folder, which is made if there is none, and says what it has.

    Args:
        folder: of the pack.
        sets: the images, all read and resized alike.
        workers: processes that read them.

    Returns:
        Why images cannot be read, which are not in the pack, in a line each.

    Raises:
        PackError: if the pack is broken or has other images.
        ClaimError: if another process is packing there.
        WriteError: if the system refuses; what was written before stays.
    """
    first, names = sets[0], list(dict.fromkeys(name for one in sets for name in one.records.images))
    transform, start = first.transform, time.perf_counter()
    assert isinstance(transform, Prepared)  # as READING asks for
    make_folder(folder)
    with claimed(folder):
        there = opened(folder, transform, rotate=first.rotate)
        there.require_current(names, first.root)
        wanted = [name for name in names if name not in there.known]
        images = DataLoader(
            Making(first, transform, wanted), batch_size=None, num_workers=cap(workers), collate_fn=as_it_is
        )
        bar = tqdm(images, str(folder), len(wanted), unit="image", leave=False, smoothing=0.05, disable=not wanted)
        failed = write(folder, bar)
        there = opened(folder, transform, rotate=first.rotate)
    size, took = sum(part.pixels.stat().st_size for part in there.parts), time.perf_counter() - start
    print(f"{folder}: {len(there.known):,} images, {size / 1e6:,.1f} MB; {took:,.1f} s")
    return failed


def as_it_is(made: Any) -> Any:
    """What a worker hands over."""
    return made


def opened(folder: Path, transform: Prepared, *, rotate: bool) -> Pack:
    """The pack of a folder, empty where there was none."""
    how = preparation(transform.how, rotate=rotate)
    if not (folder / pack.MANIFEST).exists():
        if any(folder.glob(pack.PARTS)):
            raise PackError(f"{folder} has images and no {pack.MANIFEST}: {pack.WAY_OUT}")
        with atomic_write(folder / pack.MANIFEST, "w") as file:
            file.write(json.dumps({**pack.FORMAT, "preparation": how}, indent=2) + "\n")
    return Pack.open(folder, how, transform.finish)


def write(folder: Path, images: Iterable[Made | Unreadable]) -> list[str]:
    """Appends images to a pack, part by part; why some of them cannot be read."""
    names = (folder / f"part-{number:05}.json" for number in count())
    free = (path for path in names if not path.exists())
    failed: list[str] = []
    part: list[Made] = []
    for image in images:
        if isinstance(image, Unreadable):
            failed.append(image.message)
            continue
        part.append(image)
        if len(part) == PART:
            write_part(next(free), part)
            part = []
    if part:
        write_part(next(free), part)
    return failed


def write_part(path: Path, part: Sequence[Made]) -> None:
    """Writes pixels, then the file that makes them count."""
    pixels = np.stack([made.pixels for made in part])
    with atomic_write(path.with_suffix(pack.PIXELS)) as file:
        file.write(pixels.data)
    rows = [[made.name, *made.entry] for made in part]
    with atomic_write(path, "w") as file:
        file.write(json.dumps({"size": pixels.shape[2:], "images": rows}) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("config", help="YAML in configs/")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pack, new or to be extended")
    parser.add_argument("--only", choices=("train", "test"), help="leave out the others")
    cli.add_overrides(parser, "DATASETS.ROOT_DIR DIR")
    args = cli.read(parser, argv)
    return cli.run(lambda: pack_all(load_config(args.config, [*args.opts, *READING]), args.out.expanduser(), args.only))


def pack_all(cfg: CfgNode, out: Path, only: str | None) -> int:
    """Packs everything; says what cannot be, and how to go on."""
    failed = []
    for name, sets in image_sets(cfg, only).items():
        failed += extend(out / name, sets, cfg.DATALOADER.NUM_WORKERS)
    for error in failed:
        print(f"left out: {error}", file=sys.stderr)
    with_it = "DATALOADER.AUGMENT_ON device" if cfg.INPUT.AUGMENT else "INPUT.AUGMENT False, as here"
    print(f"next: add DATASETS.PACK {out.resolve()}; training reads it with {with_it}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
