"""Scenes of drawn concepts on textured backgrounds, drawn on demand.

Every scene is a function of (split, index) alone. Training scenes hold seen labels only, validation and test scenes
any of the 1,006. `test_shifted` has sizes and backgrounds that nothing is trained or chosen on.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
from PIL import Image

from datasets.emoji.drawings import drawing
from datasets.emoji.names import LABELS, SEEN
from datasets.shapes import Scene

__all__ = ["SPLITS", "Box", "Layout", "Split", "scene", "scene_boxes", "scene_labels", "scene_masks"]

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

SEED = 2503_15338
CROWD = 0.75  # of the image that the squares of the drawings may cover together, before they shrink
TRIES = 12  # places for a drawing, of which the one that covers the others least is taken


class Layout(NamedTuple):
    """What scenes look like: the side of the image, how many drawings, their longer sides, all in pixels; on what."""

    side: int = 64
    objects: tuple[int, int] = (3, 9)
    sizes: tuple[int, int] = (18, 36)
    stripes: bool = False


class Split(NamedTuple):
    """What a split draws its scenes from."""

    key: int  # separates the random streams of the splits
    size: int
    labels: tuple[str, ...]
    layout: Layout = Layout()


SPLITS = {
    "train": Split(1, 20_000, SEEN),
    "val": Split(2, 2_000, LABELS),
    "test": Split(3, 4_000, LABELS),
    "test_shifted": Split(5, 4_000, LABELS, Layout(sizes=(14, 48), stripes=True)),
    "pretrain": Split(4, 2**31, LABELS),  # for tools/pretrain_clip.py; shares no scene with the others
}


def scene(split: str, index: int, layout: Layout | None = None) -> Scene:
    """Scene number `index` of a split: the same on every call.

    Args:
        split: a key of `SPLITS`.
        index: from 0 to the split's size - 1.
        layout: what scenes look like; None: the split's own.

    Raises:
        IndexError: if the split has no such scene.
        DataError: if a package is missing that drawings come from.
    """
    chosen, rng, layout = _chosen(split, index, layout)
    canvas = _background(rng, layout)
    for picture, place in _objects(chosen, rng, layout):
        canvas.paste(picture, place, picture)
    grain = rng.standard_normal((layout.side, layout.side, 1), np.float32) * rng.uniform(0, 8)
    pixels = (np.asarray(canvas, np.float32) + grain).clip(0, 255)
    return Scene(Image.fromarray(pixels.astype(np.uint8)), chosen)


def scene_labels(split: str, index: int, layout: Layout | None = None) -> tuple[str, ...]:
    """The labels of `scene`, without drawing it."""
    return _chosen(split, index, layout)[0]


def scene_boxes(split: str, index: int, layout: Layout | None = None) -> tuple[Box, ...]:
    """The extent of each object of `scene` within the image, also where others cover it."""
    chosen, rng, layout = _chosen(split, index, layout)
    _background(rng, layout)  # for the same random numbers behind it
    boxes = []
    for picture, (x, y) in _objects(chosen, rng, layout):
        left, top, right, bottom = picture.getbbox() or (0, 0, 0, 0)
        corners = (x + left, y + top, x + right, y + bottom)
        boxes.append(cast(Box, tuple(min(max(corner, 0), layout.side) for corner in corners)))
    return tuple(boxes)


def scene_masks(split: str, index: int, layout: Layout | None = None) -> np.ndarray:
    """What is seen of each object of `scene`: its share of every pixel, (objects, side, side), float32, in [0, 1]."""
    chosen, rng, layout = _chosen(split, index, layout)
    _background(rng, layout)
    layers: list[Image.Image] = []
    for picture, place in _objects(chosen, rng, layout):
        alpha = picture.getchannel("A")
        for behind in layers:
            behind.paste(0, (*place, place[0] + alpha.width, place[1] + alpha.height), alpha)
        layers.append(Image.new("L", (layout.side, layout.side)))
        layers[-1].paste(alpha, place)
    return np.stack([np.asarray(layer, np.float32) / 255 for layer in layers])


def _chosen(split: str, index: int, layout: Layout | None) -> tuple[tuple[str, ...], np.random.Generator, Layout]:
    """A scene's labels, the generator to draw it with, and its layout."""
    part = SPLITS[split]
    if not 0 <= index < part.size:
        raise IndexError(f"split {split!r} of emoji has scenes 0 to {part.size - 1}, not {index}")
    layout = part.layout if layout is None else layout
    rng = np.random.default_rng((SEED, part.key, index))
    count = int(rng.integers(layout.objects[0], layout.objects[1] + 1))
    return tuple(part.labels[i] for i in rng.choice(len(part.labels), count, replace=False)), rng, layout


def _objects(
    labels: tuple[str, ...], rng: np.random.Generator, layout: Layout
) -> Iterator[tuple[Image.Image, tuple[int, int]]]:
    """Each drawing as it is in the scene, RGBA, and where its upper left corner is; later ones in front."""
    for label, (x, y, size) in zip(labels, _placements(len(labels), rng, layout), strict=True):
        picture = drawing(label).resize((round(size), round(size)), Image.Resampling.BILINEAR)
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = picture.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True)
        light = np.arange(256) * rng.uniform(0.85, 1.15)
        picture = picture.point([*np.tile(light.clip(0, 255).round(), 3).astype(int).tolist(), *range(256)])
        yield picture, (round(x - picture.width / 2), round(y - picture.height / 2))


def _placements(count: int, rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """(count, 3) of centre and size in pixels; squares that shrink in a crowd and overlap as little as tries allow."""
    smallest, largest = layout.sizes
    sizes = rng.uniform(smallest, largest, count)
    crowding = CROWD * layout.side**2 / (sizes**2).sum()
    sizes = (sizes * min(crowding, 1) ** 0.5).clip(smallest)
    placed = np.empty((count, 3))
    for i, size in enumerate(sizes):
        tries = rng.uniform(size / 2, layout.side - size / 2, (TRIES, 2))
        apart = np.abs(tries[:, None] - placed[None, :i, :2]).max(2) - (placed[:i, 2] + size) / 2  # (TRIES, i)
        placed[i] = *tries[apart.min(1, initial=layout.side).argmax()], size
    return placed


def _background(rng: np.random.Generator, layout: Layout) -> Image.Image:
    """A smooth texture of a few colours, coarse or fine; or stripes of two colours in any direction."""
    colour, spread = rng.uniform(20, 235, 3), rng.uniform(5, 50)
    if layout.stripes:
        other, angle, period = rng.uniform(20, 235, 3), rng.uniform(0, np.pi), rng.uniform(4, 24)
        y, x = np.mgrid[: layout.side, : layout.side]
        wave = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        texture = colour + wave[..., None] * (other - colour) * 0.6
        return Image.fromarray(texture.astype(np.uint8))
    cells = int(rng.integers(2, 9))
    texture = (colour + rng.normal(0, spread, (cells, cells, 3))).clip(0, 255).astype(np.uint8)
    return Image.fromarray(texture).resize((layout.side, layout.side), Image.Resampling.BICUBIC)
