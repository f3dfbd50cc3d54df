"""How an image tower cuts images into regions: patches of a ViT, positions of the last stage of a ResNet."""

import warnings
from typing import Any

from clip.weights import WeightsError

__all__ = ["STRIDE", "check_image_size", "is_resnet", "native_grid", "region_size"]

STRIDE = 32  # of a ResNet's last stage: five halvings


def is_resnet(visual: Any) -> bool:
    """Whether an image tower of open_clip is a `ModifiedResNet`; the others here are `VisionTransformer`s."""
    return hasattr(visual, "attnpool")


def region_size(visual: Any) -> tuple[int, int]:
    """Height and width of a region in pixels."""
    return (STRIDE, STRIDE) if is_resnet(visual) else visual.patch_size


def native_grid(visual: Any) -> tuple[int, int]:
    """Rows and columns of regions that the tower has positional embeddings for."""
    return (visual.image_size // STRIDE, visual.image_size // STRIDE) if is_resnet(visual) else visual.grid_size


def check_image_size(visual: Any, image_size: tuple[int, int]) -> None:
    """Warns if positional embeddings will be interpolated for images of (height, width) pixels.

    Raises:
        WeightsError: if regions do not cover such images exactly.
    """
    (height, width), (rows, columns) = region_size(visual), native_grid(visual)
    if image_size[0] % height or image_size[1] % width:
        raise WeightsError(
            f"images of {image_size[0]} x {image_size[1]} pixels cannot be cut into regions of {height} x {width}; "
            "change INPUT.SIZE_TRAIN and INPUT.SIZE_TEST"
        )
    grid = image_size[0] // height, image_size[1] // width
    if grid != (rows, columns):
        warnings.warn(
            f"CLIP's positional embeddings are interpolated from {rows} x {columns} to {grid[0]} x {grid[1]} regions",
            stacklevel=2,
        )
