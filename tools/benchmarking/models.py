"""Models that are measured: their weights need not be trained for that."""

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from yacs.config import CfgNode

from clip.load import ClipTowers, load_clip
from configs import load_config
from model import build_method
from model.precision import store_in
from tools.benchmarking.floor import Floor, TextLengths, lengths_of
from tools.benchmarking.measuring import Setting
from tools.benchmarking.precision import FLOAT32, Precision
from tools.benchmarking.reference import PlainRAM

__all__ = ["BASE", "EMOJI", "LARGE", "REFERENCE", "ROOT", "SMALL", "Built", "Model", "build", "label_names"]

REFERENCE = "plain reference"
ROOT = Path(__file__).resolve().parents[2]
# Words of one token each, as most labels are; a label has one, two or three of them.
WORDS = (
    "apple", "baby", "bag", "ball", "bank", "beach", "bear", "bed", "bell", "bird", "boat", "book", "bottle", "box",
    "boy", "bread", "bridge", "bus", "cake", "camera", "car", "castle", "cat", "chair", "child", "church", "city",
    "clock", "cloud", "coat", "coffee", "cow", "cup", "desk", "dog", "door", "dress", "egg", "eye", "face", "field",
    "fire", "fish", "flag", "floor", "flower", "food", "forest", "fruit", "garden", "girl", "glass", "gold", "grass",
    "hand", "hat", "hill", "home", "horse", "house", "ice", "island", "key", "king", "knife", "lake", "lamp", "leaf",
    "light", "lion", "man", "map", "market", "milk", "mirror", "moon", "mountain", "mouth", "ocean", "office", "paper",
    "park", "phone", "piano", "plane", "plant", "queen", "river", "road", "rock", "room", "rose", "sand", "sea", "ship",
    "shoe", "sign", "silver", "sky", "snow", "stone", "street", "sun", "table", "temple", "tower", "train", "tree",
    "truck", "wall", "water", "window", "woman", "wood",
)  # fmt: skip


class Model(NamedTuple):
    """A CLIP and a recipe."""

    name: str
    config: str  # file below `configs`
    overrides: tuple[str, ...]
    images: int  # of a batch


RANDOM = ("MODEL.CLIP_WEIGHTS", "random")
BASE = Model("ViT-B/16", "coco.yml", RANDOM, 8)  # 48 seen labels, 65 in all
LARGE = Model("ViT-B/16", "nus.yml", RANDOM, 1)  # 925 seen labels, 1,006 in all
SMALL = Model("shapes", "shapes.yml", (), 64)
EMOJI = Model("emoji", "emoji.yml", (), 64)  # 925 seen labels, 1,006 in all, and a CLIP that was trained


@dataclass
class Built:
    """A method with what it was made from."""

    cfg: CfgNode
    towers: ClipTowers
    method: Any
    device: torch.device
    precision: Precision

    @cached_property
    def reference(self) -> PlainRAM:
        """The plain reference with the same weights."""
        return PlainRAM(self.method, self.cfg, self.towers.logit_scale)

    def floor(self, size: Sequence[int] | None = None) -> Floor:
        """FLOP of images of a size; the configured one of tests."""
        return Floor.of(self.towers, self.cfg, size or self.cfg.INPUT.SIZE_TEST)

    def lengths(self, names: Sequence[str]) -> TextLengths:
        """Of the texts of labels."""
        return lengths_of(self.method.tokens(names))

    def autocast(self) -> torch.autocast:
        """The context of its precision."""
        dtype = self.precision.dtype
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)

    def images(self, count: int, size: Sequence[int] | None = None) -> Tensor:
        """Random ones, (B, 3, H, W), on the device."""
        return torch.randn(count, 3, *(size or self.cfg.INPUT.SIZE_TEST), device=self.device)


@lru_cache(maxsize=1)
def _towers(backbone: str, weights: str, seed: int) -> ClipTowers:
    return load_clip(backbone, weights, seed=seed)


@lru_cache(maxsize=2)
def build(
    model: Model, setting: Setting, precision: Precision = FLOAT32, overrides: tuple[str, ...] = ()
) -> Built:  # fmt: skip
    """RAM as before its training, for 48 or 925 seen labels."""
    own = ("SOLVER.AMP", precision.name, "TEST.AMP", precision.name, "SOLVER.IMS_PER_BATCH", str(model.images))
    cfg = load_config(ROOT / "configs" / model.config, (*model.overrides, *own, *overrides))
    towers = deepcopy(_towers(cfg.MODEL.BACKBONE, cfg.MODEL.CLIP_WEIGHTS, cfg.SOLVER.SEED))  # random ones take seconds
    torch.manual_seed(0)
    method = build_method(cfg, towers, seen=48).to(setting.device)
    store_in(precision.dtype, method)
    return Built(cfg, towers, method, setting.device, precision)


def label_names(count: int) -> tuple[str, ...]:
    """So many names, the shortest first."""
    return tuple(itertools.islice(_names(), count))


def _names() -> Iterator[str]:
    for words in itertools.count(1):
        yield from map(" ".join, itertools.product(WORDS, repeat=words))
