"""From an RGB image to the model's input (3, H, W), float32.

Training: six changes at full size (`datasets.augmentation`), resize, flip, pad and crop, normalise, erase. A device
that augments whole batches (`datasets.batched`) does all of it but the resize, and does that first.
All randomness is torch's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from datasets.augmentation import Augmentation
from datasets.records import DataError

__all__ = ["Prepared", "TrainingSteps", "Transform", "in_workers", "resized_only", "test_transform", "training_steps"]

Transform = Callable[[Image], Tensor]


@dataclass(frozen=True)
class Prepared:
    """A transform without randomness in two parts; what the first one gives can be packed (`datasets.pack`)."""

    shrink: Callable[[Image], Tensor]  # to (3, H, W) uint8
    finish: Callable[[Tensor], Tensor]
    how: str  # the images are resized, in words

    def __call__(self, image: Image) -> Tensor:
        """Both."""
        return self.finish(self.shrink(image))


class TrainingSteps(NamedTuple):
    """What becomes of a training image, one step after the other where a worker does all of them."""

    augment: Augmentation  # at full size
    shrink: v2.Compose  # to (3, H, W) uint8
    flip: v2.RandomHorizontalFlip
    crop: v2.RandomCrop
    normalise: v2.Compose  # to float32; batches too
    erase: v2.RandomErasing


def in_workers(steps: TrainingSteps) -> Transform:
    """All of it, image by image."""
    return v2.Compose(steps)


def resized_only(steps: TrainingSteps) -> Prepared:
    """What is left for workers where batches are augmented: to (3, H, W) uint8."""
    return Prepared(steps.shrink, nn.Identity(), _words(steps.crop.size, "bicubic"))


def training_steps(
    *,
    size: Sequence[int],
    flip: float,
    erase: float,
    padding: int,
    aug_prob: float,
    crop: float,
    blur: float,
    contrast: Sequence[float],
    affine: float,
    rotation: float,
    noise: float,
    multiply: Sequence[float],
    per_channel: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> TrainingSteps:
    """The steps of a random augmentation to (3, H, W), float32.

    Args:
        size: (H, W) in pixels; the aspect ratio is not kept.
        flip: probability of a horizontal flip.
        erase: probability of replacing a rectangle (2 to 33 % of the area) by N(0, 1) noise, after normalising.
        padding: black pixels on each side before a random crop back to `size`.
        aug_prob: see `Augmentation`, where it is `prob`, like all up to `per_channel`.
        crop: below 0.5.
        blur: in pixels of the full image.
        contrast: range of the factor.
        affine: below 1.
        rotation: in degrees.
        noise: as a fraction of the full range.
        multiply: range of the factor.
        per_channel: a probability.
        mean: per channel, pixels in [0, 1].
        std: per channel.

    Raises:
        DataError: if a value is out of its range.
    """
    _check_normalisation(size, mean, std)
    for key, value in {"PROB": flip, "RE_PROB": erase, "AUG_PROB": aug_prob, "PER_CHANNEL": per_channel}.items():
        _require(0 <= value <= 1, key, value, "in [0, 1]")
    for key, value in {"PADDING": padding, "BLUR": blur, "ROTATION": rotation, "NOISE": noise}.items():
        _require(value >= 0, key, value, "0 or more")
    _require(0 <= crop < 0.5, "CROP", crop, "in [0, 0.5)")
    _require(0 <= affine < 1, "AFFINE", affine, "in [0, 1)")
    for key, ends in {"CONTRAST": contrast, "MULTIPLY": multiply}.items():
        _require(len(ends) == 2 and 0 <= ends[0] <= ends[1], key, ends, "two numbers, 0 <= low <= high")
    augmentation = Augmentation(
        prob=aug_prob, crop=crop, blur=blur, contrast=contrast, affine=affine, rotation=rotation, noise=noise,
        multiply=multiply, per_channel=per_channel,
    )  # fmt: skip
    return TrainingSteps(
        augmentation,
        v2.Compose([v2.PILToTensor(), v2.Resize(tuple(size), InterpolationMode.BICUBIC, antialias=True)]),
        v2.RandomHorizontalFlip(flip),  # the release flips first: the same pixels, at a fifth of the work
        v2.RandomCrop(tuple(size), padding=padding),
        _normalise(mean, std),
        v2.RandomErasing(erase, value="random"),
    )


def test_transform(*, size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Prepared:
    """Bilinear resize (antialiased, aspect ratio not kept) and normalisation to (3, H, W), float32.

    Args:
        size: (H, W) in pixels.
        mean: per channel, pixels in [0, 1].
        std: per channel.

    Raises:
        DataError: if a value is out of its range.
    """
    _check_normalisation(size, mean, std)
    resize = v2.Resize(tuple(size), InterpolationMode.BILINEAR, antialias=True)  # on the PIL image, as the release
    return Prepared(v2.Compose([resize, v2.PILToTensor()]), _normalise(mean, std), _words(size, "bilinear"))


def _words(size: Sequence[int], how: str) -> str:
    return f"{size[1]} x {size[0]} pixels ({how})"


def _normalise(mean: Sequence[float], std: Sequence[float]) -> v2.Compose:
    return v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def _check_normalisation(size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
    _require(len(size) == 2 and min(size) > 0, "SIZE_TRAIN or SIZE_TEST", size, "height and width, both above 0")
    _require(len(mean) == 3, "PIXEL_MEAN", mean, "three numbers")
    _require(len(std) == 3 and min(std) > 0, "PIXEL_STD", std, "three numbers above 0")


def _require(valid: bool, key: str, value: object, allowed: str) -> None:
    if not valid:
        raise DataError(f"INPUT.{key} is {value}; it has to be {allowed}")
