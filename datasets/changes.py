"""Six changes of an image, each with its numbers: what `datasets.augmentation` draws.

RAM's release augments with imgaug 0.4; these are its operators, written for Pillow and torch. Like there, every one of
them takes an 8-bit RGB image and gives one of the same size. `datasets.batched` makes them to whole batches.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["Blur", "Change", "Contrast", "Crop", "Inverse", "Multiply", "Noise", "Warp", "blurred", "with_noise"]

GREY = 127.0  # contrast is stretched about this level, the integer middle of 0 to 255 in imgaug
BAND = 64  # rows
SHARP = 0.25  # below this sigma a pixel's neighbours weigh less than half of one 8-bit level together
Inverse = tuple[float, float, float, float, float, float]
Picture = TypeVar("Picture", Image.Image, Tensor)


class Crop(NamedTuple):
    """Cuts fractions off the left, top, right and bottom, and enlarges the rest bilinearly to the old size."""

    cut: Sequence[float]

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image cropped."""
        return image.resize(image.size, Image.Resampling.BILINEAR, box=self._kept(*image.size))

    def inverse(self, width: int, height: int) -> Inverse:
        """Of an image of this size, as `Warp.inverse`."""
        left, top, right, bottom = self._kept(width, height)
        return (right - left) / width, 0.0, left, 0.0, (bottom - top) / height, top

    def _kept(self, width: int, height: int) -> tuple[float, float, float, float]:
        left, top, right, bottom = self.cut
        return left * width, top * height, (1 - right) * width, (1 - bottom) * height


class Blur(NamedTuple):
    """Gaussian blur, `sigma` in pixels."""

    sigma: float

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image blurred."""
        return blurred(image, image.size, (self.sigma, self.sigma))


class Contrast(NamedTuple):
    """127 + factor (v - 127), cut off at black and white and rounded down."""

    factor: float

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image with that contrast."""
        return _through(self.levels(), image)

    def levels(self) -> Tensor:
        """(3, 256) uint8: what every level of each channel becomes."""
        return _whole(GREY + self.factor * (torch.arange(256.0) - GREY))


class Multiply(NamedTuple):
    """factor v for one factor, or one for each channel, cut off at white and rounded down."""

    factors: Sequence[float]

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image with that brightness."""
        return _through(self.levels(), image)

    def levels(self) -> Tensor:
        """(3, 256) uint8: what every level of each channel becomes."""
        return _whole(torch.tensor(self.factors)[:, None] * torch.arange(256.0))


class Noise(NamedTuple):
    """v + n, n from N(0, (255 deviation)^2) rounded; one map for all channels, or 3, one for each."""

    deviation: float
    maps: int

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image with noise that is drawn now."""
        levels = np.array(image)  # (H, W, 3), a copy
        for band in torch.from_numpy(levels).split(BAND):  # temporaries stay in the cache: three times as fast
            band.copy_(with_noise(band, torch.randn(*band.shape[:2], self.maps), self.deviation))
        return Image.fromarray(levels)


class Warp(NamedTuple):
    """Scaled, then turned about the centre, then shifted; bilinear, black where nothing comes to lie.

    `scale` are positive factors of x and y, `shift` fractions of width and height, `angle` is in degrees.
    """

    scale: Sequence[float]
    shift: Sequence[float]
    angle: float

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image warped."""
        how = Image.Transform.AFFINE, self.inverse(*image.size), Image.Resampling.BILINEAR
        return image.transform(image.size, *how)

    def inverse(self, width: int, height: int) -> Inverse:
        """Of an image of this size: (a, b, c, d, e, f), by which a point comes from (a x + b y + c, d x + e y + f).

        In pixels from the upper left corner; the first pixel's centre is (0.5, 0.5).
        """
        x, y = width / 2, height / 2
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        to_x, to_y = x + self.shift[0] * width, y + self.shift[1] * height  # where the centre goes
        # First the shift is undone, then the angle, then the scale.
        a, b, d, e = cos / self.scale[0], sin / self.scale[0], -sin / self.scale[1], cos / self.scale[1]
        return a, b, x - a * to_x - b * to_y, d, e, y - d * to_x - e * to_y


Change = Crop | Blur | Contrast | Noise | Multiply | Warp


def blurred(image: Picture, size: Sequence[int], sigmas: Sequence[float]) -> Picture:
    """Gaussian blur of three sigmas to each side, less where the image is smaller than that.

    Args:
        image: of 8 bits; of Pillow, or (3, H, W).
        size: W and H.
        sigmas: along both, in pixels.
    """
    radii = [min(math.ceil(3 * sigma), min(size) - 1) for sigma in sigmas]
    if max(sigmas) < SHARP or max(radii) == 0:
        return image
    return v2.functional.gaussian_blur(image, [2 * radius + 1 for radius in radii], list(sigmas))


def with_noise(levels: Tensor, normals: Tensor, deviation: float | Tensor) -> Tensor:
    """uint8 levels with N(0, 1) times 255 deviation, rounded, added; cut off at black and white. All broadcast."""
    noise = (normals * (255 * deviation)).round_().to(torch.int16)
    return (levels + noise).clamp_(0, 255).to(torch.uint8)


def _whole(levels: Tensor) -> Tensor:
    """(3, 256) whole levels of (256,), (1, 256) or (3, 256)."""
    return levels.clamp(0, 255).to(torch.uint8).expand(3, 256)


def _through(levels: Tensor, image: Image.Image) -> Image.Image:
    return image.point(levels.flatten().tolist())
