"""From an RGB image to the model's input (3, H, W), float32.

Training: at full size crop, blur, contrast, noise,
brightness and affine; then flip, resize, pad and crop, normalise, erase. The release uses imgaug for the
first part; here it is torchvision with the same strengths and the same order. All randomness is torch's.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL.Image import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from datasets.records import DataError

__all__ = ["Transform", "test_transform", "train_transform"]

Transform = Callable[[Image], Tensor]
MID_GREY = 127.5


def train_transform(
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
    noise: float,
    multiply: Sequence[float],
    mean: Sequence[float],
    std: Sequence[float],
) -> Transform:
    """Random augmentation to (3, H, W), float32.

    Args:
        size: (H, W) in pixels; the aspect ratio is not kept.
        flip: probability of a horizontal flip.
        erase: probability of replacing a rectangle (2 to 33 % of the area) by N(0, 1) noise, after normalising.
        padding: black pixels on each side before a random crop back to `size`.
        aug_prob: probability of each of crop, blur, contrast and affine.
        crop: largest fraction cut off each side, below 0.5.
        blur: largest sigma of the Gaussian, in pixels of the full image.
        contrast: range of the factor about mid-grey.
        affine: largest change of scale and largest shift, as fractions, below 1.
        noise: largest standard deviation of pixel noise, as a fraction of the full range.
        multiply: range of the brightness factor.
        mean: per channel, pixels in [0, 1].
        std: per channel.

    Raises:
        DataError: if a value is out of its range.
    """
    _check_normalisation(size, mean, std)
    for key, value in {"PROB": flip, "RE_PROB": erase, "AUG_PROB": aug_prob}.items():
        _require(0 <= value <= 1, key, value, "in [0, 1]")
    for key, value in {"PADDING": padding, "BLUR": blur, "NOISE": noise}.items():
        _require(value >= 0, key, value, "0 or more")
    _require(0 <= crop < 0.5, "CROP", crop, "in [0, 0.5)")
    _require(0 <= affine < 1, "AFFINE", affine, "in [0, 1)")
    for key, value in {"CONTRAST": contrast, "MULTIPLY": multiply}.items():
        _require(len(value) == 2 and 0 <= value[0] <= value[1], key, value, "two numbers, 0 <= low <= high")
    warp = v2.RandomAffine(0, (affine, affine), (1 - affine, 1 + affine), interpolation=InterpolationMode.BILINEAR)
    return v2.Compose([
        v2.PILToTensor(),
        v2.RandomApply([partial(_crop_sides, most=crop)], aug_prob),
        v2.ToDtype(torch.float32),  # still 0 to 255
        v2.RandomApply([partial(_blur, most=blur)], aug_prob),
        v2.RandomApply([partial(_contrast, factors=contrast)], aug_prob),
        partial(_add_noise, most=noise),
        partial(_multiply, factors=multiply),
        v2.RandomApply([warp], aug_prob),
        v2.RandomHorizontalFlip(flip),
        _to_bytes,  # as the release: what is resized is an 8-bit image
        v2.Resize(tuple(size), InterpolationMode.BICUBIC, antialias=True),
        v2.RandomCrop(tuple(size), padding=padding),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean, std),
        v2.RandomErasing(erase, value="random"),
    ])  # fmt: skip


def test_transform(*, size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Transform:
    """Bilinear resize (antialiased, aspect ratio not kept) and normalisation to (3, H, W), float32.

    Args:
        size: (H, W) in pixels.
        mean: per channel, pixels in [0, 1].
        std: per channel.

    Raises:
        DataError: if a value is out of its range.
    """
    _check_normalisation(size, mean, std)
    return v2.Compose([
        v2.Resize(tuple(size), InterpolationMode.BILINEAR, antialias=True),  # on the PIL image, as the release
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean, std),
    ])  # fmt: skip


def _check_normalisation(size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
    _require(len(size) == 2 and min(size) > 0, "SIZE_TRAIN or SIZE_TEST", size, "height and width, both above 0")
    _require(len(mean) == 3, "PIXEL_MEAN", mean, "three numbers")
    _require(len(std) == 3 and min(std) > 0, "PIXEL_STD", std, "three numbers above 0")


def _require(valid: bool, key: str, value: object, allowed: str) -> None:
    if not valid:
        raise DataError(f"INPUT.{key} is {value}; it has to be {allowed}")


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _crop_sides(image: Tensor, *, most: float) -> Tensor:
    """Cuts off each side by itself; at least one pixel is left since `most` < 0.5."""
    height, width = image.shape[-2:]
    top, bottom = (int(height * _uniform(0, most)) for _ in range(2))
    left, right = (int(width * _uniform(0, most)) for _ in range(2))
    return image[..., top : height - bottom, left : width - right]


def _blur(pixels: Tensor, *, most: float) -> Tensor:
    """Gaussian blur of three sigmas to each side, less where the image is smaller than that."""
    sigma = _uniform(0, most)
    radius = min(math.ceil(3 * sigma), min(pixels.shape[-2:]) - 1)
    if radius == 0 or sigma < 1e-3:  # no neighbour, or none with a weight
        return pixels
    return v2.functional.gaussian_blur(pixels, [2 * radius + 1] * 2, [sigma] * 2)


def _contrast(pixels: Tensor, *, factors: Sequence[float]) -> Tensor:
    """Stretches about mid-grey (imgaug's LinearContrast; torchvision's is about the mean of the image)."""
    return (MID_GREY + _uniform(*factors) * (pixels - MID_GREY)).clamp(0, 255)


def _add_noise(pixels: Tensor, *, most: float) -> Tensor:
    return (pixels + 255 * _uniform(0, most) * torch.randn_like(pixels)).clamp(0, 255)


def _multiply(pixels: Tensor, *, factors: Sequence[float]) -> Tensor:
    return (pixels * _uniform(*factors)).clamp(0, 255)


def _to_bytes(pixels: Tensor) -> Tensor:
    return pixels.round().to(torch.uint8)
