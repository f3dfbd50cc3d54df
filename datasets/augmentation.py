"""What happens to a photograph in training: six random changes at its full size, in an order drawn anew for each image.

The order matters: contrast after a shift turns the black margin grey. All randomness is torch's.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from PIL import Image

from datasets.changes import Blur, Change, Contrast, Crop, Multiply, Noise, Warp

__all__ = ["Augmentation", "happens"]


class Augmentation:
    """Makes the six changes to an RGB image of 8 bits; the result has the same size.

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
        self.operators: tuple[Callable[[], Change | None], ...] = (
            self._crop, self._blur, self._contrast, self._noise, self._multiply, self._affine,
        )  # fmt: skip

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image after all changes that are drawn for it."""
        for change in self.drawn():
            image = change(image)
        return image

    def drawn(self) -> Iterator[Change]:
        """The changes of an image in their order, each of them drawn when it is asked for."""
        for index in torch.randperm(len(self.operators)).tolist():
            if (change := self.operators[index]()) is not None:
                yield change

    def _crop(self) -> Crop | None:
        return Crop(_uniform(0, self.crop, 4)) if happens(self.prob) else None

    def _blur(self) -> Blur | None:
        return Blur(*_uniform(0, self.blur, 1)) if happens(self.prob) else None

    def _contrast(self) -> Contrast | None:
        low, high = self.contrast
        return Contrast(*_uniform(low, high, 1)) if happens(self.prob) else None

    def _noise(self) -> Noise:
        (deviation,) = _uniform(0, self.noise, 1)
        return Noise(deviation, maps=3 if happens(self.per_channel) else 1)

    def _multiply(self) -> Multiply:
        low, high = self.multiply
        return Multiply(_uniform(low, high, 3 if happens(self.per_channel) else 1))

    def _affine(self) -> Warp | None:
        if not happens(self.prob):
            return None
        scale, shift = _uniform(1 - self.affine, 1 + self.affine, 2), _uniform(-self.affine, self.affine, 2)
        return Warp(scale, shift, angle=_uniform(-self.rotation, self.rotation, 1)[0])


def happens(probability: float) -> bool:
    """True with this probability."""
    return torch.rand(()).item() < probability


def _uniform(low: float, high: float, count: int) -> list[float]:
    return (low + (high - low) * torch.rand(count)).tolist()
