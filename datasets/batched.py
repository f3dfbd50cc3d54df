"""The training augmentation, made to whole batches on their device.

Workers read an image, resize it and draw what happens to it; a device does that to all images of a batch at once. What
is drawn, and every pixel of the noise, is a function of the image's own random state, so that an image does not depend
on the batch that it is in. The changes are those of `datasets.augmentation`, made after the resize instead of before
it: angles are those of the full image, and of its noise as much is added as the resize would leave.

B images, R rounds.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from datasets.augmentation import happens
from datasets.changes import blurred, with_noise
from datasets.plan import Box, Drawn, Plan
from datasets.transforms import TrainingSteps

__all__ = ["BatchedAugmentation", "placed", "resampled", "through_levels"]

SEEDS = 2**62
NOTHING = (0, 0, 0, 0)


class BatchedAugmentation:
    """The steps of a training image, in two parts: of an image by itself, and of a batch.

    Args:
        steps: what a worker would do one after the other.
    """

    def __init__(self, steps: TrainingSteps) -> None:
        self.steps = steps
        self._erasing = v2.RandomErasing(steps.erase.p, steps.erase.scale, steps.erase.ratio)  # draws no noise
        self._blank = torch.zeros(3, *steps.crop.size, dtype=torch.uint8)

    def draw(self, size: tuple[int, int]) -> Drawn:
        """What happens to an image of this width and height, from torch's random state."""
        changes = tuple(self.steps.augment.drawn())
        flip = happens(self.steps.flip.p)
        crop = self.steps.crop.make_params([self._blank])
        box = self._box() if happens(self._erasing.p) else NOTHING
        left, top, *_ = crop["padding"]
        return Drawn(changes, size, flip, crop["top"] - top, crop["left"] - left, box, int(torch.randint(SEEDS, ())))

    def _box(self) -> Box:
        found: dict[str, Any] = self._erasing.make_params([self._blank])
        return NOTHING if found["v"] is None else (found["i"], found["j"], found["h"], found["w"])

    def __call__(self, images: Tensor, plan: Plan) -> Tensor:
        """(B, 3, H, W) float32, normalised, of (B, 3, H, W) uint8, on their device.

        Args:
            images: resized (`resized_only`).
            plan: of the same images, on any device.
        """
        plan = plan.to(images.device)
        normals = _normals(plan.seeds, images)
        noise = torch.where(_beside_pixels(plan.channelwise), normals[:, :3], normals[:, :1])
        for r, (levels, noisy, moved, blurry) in enumerate(plan.used):
            if levels:
                images = through_levels(images, plan.levels[:, r])
            if noisy:
                images = with_noise(images, noise, _beside_pixels(plan.deviations[:, r]))
            if moved:
                images = resampled(images, plan.inverses[:, r])
            if blurry:
                images = _blurred(images, {i: sigmas for at, i, sigmas in plan.blurs if at == r})
        pixels = self.steps.normalise(placed(images, plan.flips, plan.corners))
        return torch.where(_inside(plan.erased, images), normals[:, 3:], pixels)


def through_levels(images: Tensor, levels: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 with every level v of a channel replaced by levels[b, channel, v]."""
    return levels.gather(2, images.flatten(2).long()).view_as(images)


def resampled(images: Tensor, inverses: Tensor) -> Tensor:
    """Images (B, 3, H, W) uint8 after affine maps, bilinear, black where nothing comes to lie.

    Args:
        images: of any content.
        inverses: (B, 6), of each image where a point comes from, see `Warp.inverse`.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device)[:, None] + 0.5
    a, b, c, d, e, f = (_beside_pixels(number)[:, 0] for number in inverses.unbind(1))
    from_x, from_y = a * x + b * y + c, d * x + e * y + f  # (B, H, W)
    nowhere = (from_x < 0) | (from_x >= width) | (from_y < 0) | (from_y >= height)
    grid = torch.stack([2 * from_x / width - 1, 2 * from_y / height - 1], 3)
    found = functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return found.round_().masked_fill_(nowhere[:, None], 0).to(torch.uint8)


def placed(images: Tensor, flips: Tensor, corners: Tensor) -> Tensor:
    """Images (B, 3, H, W), some of them flipped, seen through windows of their size; black beside them.

    Args:
        images: of any type.
        flips: (B,) bool, left to right.
        corners: (B, 2) int64, the first row and column that a window shows, after the flip.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + corners[:, :1]  # (B, H)
    columns = torch.arange(width, device=images.device) + corners[:, 1:]  # (B, W)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    beside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None]
    rows, columns = rows.clamp(0, height - 1)[:, None, :, None], columns.clamp(0, width - 1)[:, None, None]
    every = torch.arange(len(images), device=images.device)[:, None, None, None]
    channels = torch.arange(3, device=images.device)[:, None, None]
    return images[every, channels, rows, columns].masked_fill_(beside[:, None], 0)


def _blurred(images: Tensor, sigmas: dict[int, tuple[float, float]]) -> Tensor:
    size = images.shape[3], images.shape[2]
    return torch.stack([blurred(image, size, sigmas[i]) if i in sigmas else image for i, image in enumerate(images)])


def _normals(seeds: Sequence[int], images: Tensor) -> Tensor:
    """N(0, 1), (B, 6, H, W): each image's from a seed of its own, for its noise and for what is erased."""
    generator = torch.Generator(images.device)
    normals = torch.empty(len(images), 6, *images.shape[2:], device=images.device)
    for image, seed in zip(normals, seeds, strict=True):
        image.normal_(generator=generator.manual_seed(seed))
    return normals


def _inside(boxes: Tensor, images: Tensor) -> Tensor:
    """(B, 1, H, W), whether a pixel is within its image's box (top, left, height, width)."""
    top, left, height, width = (_beside_pixels(side) for side in boxes.unbind(1))
    row = torch.arange(images.shape[2], device=images.device)[:, None]
    column = torch.arange(images.shape[3], device=images.device)
    return (row >= top) & (row < top + height) & (column >= left) & (column < left + width)


def _beside_pixels(values: Tensor) -> Tensor:
    """(B, 1, 1, 1), to go with (B, 3, H, W)."""
    return values[:, None, None, None]
