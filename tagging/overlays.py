"""Where labels are, shown over the picture.

The colour says how probable a label is at a place, on one scale from 0 to 1 for all labels and pictures: where nothing
is, the picture stays grey and dark.
"""

import re
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from engine.atomic import atomic_write
from tagging.predictor import Prediction
from tagging.progress import refused

__all__ = ["overlay", "write_maps"]

SIDES = 384, 1024  # pixels of the longer side: at least, at most
VEIL = 0.45, 0.8  # share of the colour over the picture where the map is 0, and where it is 1
UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')  # in names of files, on any system


def overlay(image: Image.Image, chart: Tensor) -> Image.Image:
    """The picture in grey with the map in colour over it, RGB.

    Args:
        image: of any size; the result is between 384 and 1024 pixels on its longer side.
        chart: (h, w), in [0, 1], over the whole picture.
    """
    longer = max(image.size)
    scale = min(max(longer, SIDES[0]), SIDES[1]) / longer
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)[..., None] / 255
    small = Image.fromarray(chart.float().cpu().numpy())
    heat = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)
    colour = matplotlib.colormaps["inferno"](heat)[..., :3]
    share = VEIL[0] + (VEIL[1] - VEIL[0]) * heat[..., None]
    return Image.fromarray((255 * (grey * (1 - share) + colour * share)).round().astype(np.uint8))


def write_maps(folder: Path, image: Image.Image, prediction: Prediction) -> None:
    """Writes an overlay for each label, the most probable first: `1-red circle.png`.

    Args:
        folder: of this picture; made if need be.
        image: the picture.
        prediction: with maps.

    Raises:
        WriteError: if the system refuses.
    """
    assert prediction.maps is not None
    with refused(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for rank, (label, chart) in enumerate(zip(prediction.labels, prediction.maps, strict=True), 1):
        with atomic_write(folder / f"{rank}-{_safe(label)}.png") as file:
            overlay(image, chart).save(file, format="png")


def _safe(label: str) -> str:
    """The label as a part of the name of a file, which is at most 255 bytes."""
    return UNSAFE.sub("_", label).encode()[:200].decode(errors="ignore")
