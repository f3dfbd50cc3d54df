"""What happens to the images of a batch: drawn for each of them by itself, laid out for all of them together.

Every image has its changes in an order of its own. A device makes them in rounds: levels, noise, geometry, blur. What
an image does not have in a round leaves it as it is, to the bit, so that it does not depend on the others.

B images, R rounds.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from datasets.changes import Blur, Change, Contrast, Crop, Inverse, Multiply, Noise, Warp

__all__ = ["Box", "Drawn", "Plan", "rounds"]

Box = tuple[int, int, int, int]  # top, left, height and width

LEVELS, NOISE, GEOMETRY, BLUR = STAGES = range(4)
STAGE_OF = {Contrast: LEVELS, Multiply: LEVELS, Noise: NOISE, Crop: GEOMETRY, Warp: GEOMETRY, Blur: BLUR}
# Of the variance of white noise, a bicubic resize (antialiased, a = -1/2) leaves this along each side, times the factor
# if that is below 1: the integral of the squared kernel.
BICUBIC = 57 / 70


class Drawn(NamedTuple):
    """What happens to one image; pixels are those of the resized one but for `size`."""

    changes: tuple[Change, ...]  # in this order, with the numbers that they have at full size
    size: tuple[int, int]  # width and height of the full image
    flip: bool
    top: int  # first row and column that are kept; negative in the black margin
    left: int
    erased: Box  # without height nothing
    seed: int  # of the noise


class Plan(NamedTuple):
    """The same for the images of a batch."""

    levels: Tensor  # (B, R, 3, 256) uint8, what every level becomes
    deviations: Tensor  # (B, R) of the noise, as fractions of the full range
    inverses: Tensor  # (B, R, 6), see `Warp.inverse`
    channelwise: Tensor  # (B,) bool, whether the noise of channels differs
    flips: Tensor  # (B,) bool
    corners: Tensor  # (B, 2) int64, top and left
    erased: Tensor  # (B, 4) int64
    seeds: Sequence[int]  # B
    used: list[list[bool]]  # of each round, which of its stages changes any image
    blurs: list[tuple[int, int, tuple[float, float]]]  # round, image, and sigmas along width and height

    @classmethod
    def of(cls, drawn: Sequence[Drawn], size: tuple[int, int]) -> Self:
        """The plan of images that have been resized to a width and height."""
        ordered = [rounds(image.changes) for image in drawn]
        shape = len(drawn), max(map(len, ordered))
        plan = cls(
            levels=torch.arange(256, dtype=torch.uint8).repeat(*shape, 3, 1),
            deviations=torch.zeros(shape),
            inverses=torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(*shape, 1),
            channelwise=torch.zeros(len(drawn), dtype=torch.bool),
            flips=torch.tensor([image.flip for image in drawn]),
            corners=torch.tensor([(image.top, image.left) for image in drawn]),
            erased=torch.tensor([image.erased for image in drawn]),
            seeds=[image.seed for image in drawn],
            used=[[False] * len(STAGES) for _ in range(shape[1])],
            blurs=[],
        )
        for i, (image, its_rounds) in enumerate(zip(drawn, ordered, strict=True)):
            for r, changes in enumerate(its_rounds):
                for change in changes:
                    plan._enter(i, r, change, image.size, size)
        return plan

    def to(self, device: torch.device) -> Self:
        """The plan with its tensors on a device; the host does not wait for them."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

    def _enter(self, i: int, r: int, change: Change, full: tuple[int, int], small: tuple[int, int]) -> None:
        """Enters what happens to image `i` in round `r`."""
        self.used[r][STAGE_OF[type(change)]] = True
        if isinstance(change, Contrast | Multiply):
            self.levels[i, r] = change.levels().gather(1, self.levels[i, r].long())
        elif isinstance(change, Noise):
            self.deviations[i, r] = change.deviation * _left_of_noise(full, small)
            self.channelwise[i] = change.maps > 1
        elif isinstance(change, Blur):
            x, y = (change.sigma * to / of for of, to in zip(full, small, strict=True))
            self.blurs.append((r, i, (x, y)))
        else:
            self.inverses[i, r] = torch.tensor(_resized(change.inverse(*full), full, small))


def rounds(changes: Iterable[Change]) -> list[list[Change]]:
    """The changes in as few rounds as their order allows; levels that follow upon each other are one stage."""
    found: list[list[Change]] = []
    last = BLUR
    for change in changes:
        stage = STAGE_OF[type(change)]
        if not found or stage < last or stage == last != LEVELS:
            found.append([])
        found[-1].append(change)
        last = stage
    return found


def _left_of_noise(full: Sequence[int], small: Sequence[int]) -> float:
    """Of the standard deviation of noise at full size, what a resize leaves."""
    sides = zip(full, small, strict=True)
    return math.prod(1.0 if to == of else math.sqrt(BICUBIC * min(to / of, 1.0)) for of, to in sides)


def _resized(inverse: Inverse, full: Sequence[int], small: Sequence[int]) -> Inverse:
    """The same change of an image of another size and aspect ratio."""
    a, b, c, d, e, f = inverse
    x, y = small[0] / full[0], small[1] / full[1]
    return a, b * x / y, c * x, d * y / x, e, f * y
