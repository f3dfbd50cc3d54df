"""Six random changes of a photograph at its full size, in an order drawn anew for each image.

RAM's release augments with imgaug 0.4; these are its operators, written for Pillow and torch. Like there, every one of
them takes an 8-bit image and gives one, so that the order matters: contrast after a shift turns the black margin grey.
All randomness is torch's.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["Augmentation", "add_noise", "blur", "crop_sides", "multiply", "stretch_contrast", "warp"]

GREY = 127.0  # contrast is stretched about this level, the integer middle of 0 to 255 in imgaug
BAND = 64  # rows
SHARP = 0.25  # below this sigma a pixel's neighbours weigh less than half of one 8-bit level together


class Augmentation:
    """Applies the six operators to an RGB image of 8 bits; the result has the same size.

    Args:
        prob: probability of each of crop, blur, contrast and affine; noise and brightness are always drawn.
        crop: largest fraction cut off each side, below 0.5; the rest is brought back to the full size.
        blur: largest sigma of the Gaussian, in pixels.
        contrast: range of the factor about mid-grey.
        affine: largest change of the two scales and of the two shifts, as fractions, below 1.
        rotation: largest angle to either side, in degrees.
        noise: largest standard deviation of the pixel noise, as a fraction of the full range.
        multiply: range of the brightness factor.
        per_channel: probability that noise, and likewise brightness, is drawn for each channel by itself.
    """

    def __init__(
        self, *, prob: float, crop: float, blur: float, contrast: Sequence[float], affine: float, rotation: float,
        noise: float, multiply: Sequence[float], per_channel: float,
    ) -> None:  # fmt: skip
        self.prob, self.per_channel = prob, per_channel
        self.crop, self.blur, self.contrast = crop, blur, contrast
        self.affine, self.rotation, self.noise, self.multiply = affine, rotation, noise, multiply
        self.operators: tuple[Callable[[Image.Image], Image.Image], ...] = (
            self._crop, self._blur, self._contrast, self._noise, self._multiply, self._affine,
        )  # fmt: skip

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image after all six, in a random order."""
        for index in torch.randperm(len(self.operators)).tolist():
            image = self.operators[index](image)
        return image

    def _crop(self, image: Image.Image) -> Image.Image:
        return crop_sides(image, _uniform(0, self.crop, 4)) if _happens(self.prob) else image

    def _blur(self, image: Image.Image) -> Image.Image:
        return blur(image, *_uniform(0, self.blur, 1)) if _happens(self.prob) else image

    def _contrast(self, image: Image.Image) -> Image.Image:
        low, high = self.contrast
        return stretch_contrast(image, *_uniform(low, high, 1)) if _happens(self.prob) else image

    def _noise(self, image: Image.Image) -> Image.Image:
        return add_noise(image, *_uniform(0, self.noise, 1), maps=3 if _happens(self.per_channel) else 1)

    def _multiply(self, image: Image.Image) -> Image.Image:
        low, high = self.multiply
        return multiply(image, _uniform(low, high, 3 if _happens(self.per_channel) else 1))

    def _affine(self, image: Image.Image) -> Image.Image:
        if not _happens(self.prob):
            return image
        scale, shift = _uniform(1 - self.affine, 1 + self.affine, 2), _uniform(-self.affine, self.affine, 2)
        return warp(image, scale=scale, shift=shift, angle=_uniform(-self.rotation, self.rotation, 1)[0])


def crop_sides(image: Image.Image, cut: Sequence[float]) -> Image.Image:
    """The image without a fraction of its left, top, right and bottom, enlarged bilinearly to its old size."""
    (width, height), (left, top, right, bottom) = image.size, cut
    kept = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=kept)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur of three sigmas to each side, less where the image is smaller than that."""
    radius = min(math.ceil(3 * sigma), min(image.size) - 1)
    if sigma < SHARP or radius == 0:
        return image
    return v2.functional.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)


def stretch_contrast(image: Image.Image, factor: float) -> Image.Image:
    """127 + factor (v - 127), cut off at black and white and rounded down."""
    return _through_tables(image, GREY + factor * (torch.arange(256.0) - GREY))


def multiply(image: Image.Image, factors: Sequence[float]) -> Image.Image:
    """factor v for one factor, or one for each channel, cut off at white and rounded down."""
    return _through_tables(image, torch.tensor(factors)[:, None] * torch.arange(256.0))


def add_noise(image: Image.Image, deviation: float, *, maps: int) -> Image.Image:
    """v + n, n from N(0, (255 deviation)^2) rounded; one map for all channels, or 3, one for each."""
    levels = np.array(image)  # (H, W, 3), a copy
    for band in torch.from_numpy(levels).split(BAND):  # temporaries stay in the cache: three times as fast
        noise = torch.randn(*band.shape[:2], maps).mul_(255 * deviation).round_().to(torch.int16)
        band.copy_((band + noise).clamp_(0, 255))
    return Image.fromarray(levels)


def warp(image: Image.Image, *, scale: Sequence[float], shift: Sequence[float], angle: float) -> Image.Image:
    """Scaled, then turned about the centre, then shifted; bilinear, black where nothing comes to lie.

    Args:
        image: RGB.
        scale: factors of x and y, positive.
        shift: of x and y, as fractions of width and height.
        angle: in degrees.
    """
    x, y = image.width / 2, image.height / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    to_x, to_y = x + shift[0] * image.width, y + shift[1] * image.height  # where the centre goes
    # Pillow asks where a pixel of the result comes from: the inverse, first the shift, then the angle, then the scale.
    a, b, d, e = cos / scale[0], sin / scale[0], -sin / scale[1], cos / scale[1]
    inverse = (a, b, x - a * to_x - b * to_y, d, e, y - d * to_x - e * to_y)
    return image.transform(image.size, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR)


def _through_tables(image: Image.Image, levels: Tensor) -> Image.Image:
    """The image with its levels replaced: (256,) for every channel, or (1, 256) or (3, 256)."""
    return image.point(levels.clamp(0, 255).to(torch.uint8).expand(3, 256).flatten().tolist())


def _happens(probability: float) -> bool:
    return torch.rand(()).item() < probability


def _uniform(low: float, high: float, count: int) -> list[float]:
    return (low + (high - low) * torch.rand(count)).tolist()
