"""The embedded world `shapes`: scenes of coloured shapes on textured backgrounds, drawn on demand.

A label is a colour and a shape (`red circle`), so telling an image's labels means binding the right
colour to the right shape: an image of a red circle and a blue star must not be tagged `blue circle`.
Every scene is a function of (split, index) alone; nothing is read from or written to disk.

Scenes hold more objects than those that the benchmark's CLIP was pre-trained on (one to five), and than a caption
names: what a global feature blurs and regions keep apart.

Splits follow the open-vocabulary protocol of the paper: training scenes hold seen labels only,
validation and test scenes hold any of the 65 labels. `all` is for training without unseen labels.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["COLOURS", "LABELS", "SEEN", "SHAPES", "SPLITS", "UNSEEN", "Scene", "Split", "draw", "scene",
           "scene_labels", "scene_masks"]  # fmt: skip

Box = tuple[int, int, int, int]  # left, top, right, bottom
Tone = tuple[int, int, int]

SIZE = 64  # pixels of a side
OVERSAMPLING = 2  # drawn larger and reduced, which smooths the edges
RADIUS = (0.13, 0.21)  # of an object, as a fraction of the image
SEED = 2503_15337
OBJECTS = (4, 7)  # in a scene, fewest and most

COLOURS = {"red": 0, "yellow": 52, "green": 125, "blue": 222, "purple": 288}  # name -> hue in degrees
SHAPES = (
    "circle", "square", "triangle", "star", "cross", "ring", "heart",
    "moon", "arrow", "diamond", "house", "hourglass", "flower",
)  # fmt: skip
LABELS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)


def _unseen() -> tuple[str, ...]:
    """One colour of every shape and a second one of every third shape, 17 in all.

    Each colour and each shape also occurs among the seen labels.
    """
    colours = tuple(COLOURS)
    pairs = [(s, s % 5) for s in range(13)] + [(s, (s + 2) % 5) for s in range(0, 12, 3)]
    return tuple(f"{colours[c]} {SHAPES[s]}" for s, c in pairs)


UNSEEN = _unseen()
SEEN = tuple(label for label in LABELS if label not in UNSEEN)


class Split(NamedTuple):
    """What a split draws its scenes from."""

    key: int  # separates the random streams of the splits
    size: int
    labels: tuple[str, ...]


SPLITS = {
    "train": Split(1, 6_000, SEEN),
    "val": Split(2, 1_000, LABELS),
    "test": Split(3, 2_000, LABELS),
    "pretrain": Split(4, 2**31, LABELS),  # for tools/pretrain_clip.py; shares no scene with the others
    "all": Split(5, 6_000, LABELS),  # to train where every label has to be seen
}


class Scene(NamedTuple):
    """An image and the labels of the objects in it, in drawing order."""

    image: Image.Image
    labels: tuple[str, ...]


def scene(split: str, index: int, objects: tuple[int, int] = OBJECTS) -> Scene:
    """Scene number `index` of a split: the same on every call and every machine.

    Args:
        split: a key of `SPLITS`.
        index: from 0 to the split's size - 1.
        objects: smallest and largest number of objects; all differ in their label.

    Raises:
        IndexError: if the split has no such scene.
    """
    chosen, rng = _chosen(split, index, objects)
    return Scene(draw(chosen, rng), chosen)


def scene_labels(split: str, index: int, objects: tuple[int, int] = OBJECTS) -> tuple[str, ...]:
    """The labels of `scene`, without drawing it."""
    return _chosen(split, index, objects)[0]


def scene_masks(split: str, index: int, objects: tuple[int, int] = OBJECTS) -> np.ndarray:
    """What is seen of each object of `scene`: its share of every pixel, (objects, 64, 64), float32, in [0, 1]."""
    chosen, rng = _chosen(split, index, objects)
    side = SIZE * OVERSAMPLING
    _background(side, rng)  # for the same random numbers behind it
    layers: list[Image.Image] = []
    for mask, box, _ in _objects(chosen, rng):
        for behind in layers:
            behind.paste(0, box, mask)
        layers.append(Image.new("L", (side, side)))
        layers[-1].paste(255, box, mask)
    return np.stack([np.asarray(layer, np.float32).reshape(SIZE, OVERSAMPLING, SIZE, -1).mean((1, 3)) / 255
                     for layer in layers])  # fmt: skip


def _chosen(split: str, index: int, objects: tuple[int, int]) -> tuple[tuple[str, ...], np.random.Generator]:
    """A scene's labels, and the generator to draw it with."""
    key, size, labels = SPLITS[split]
    if not 0 <= index < size:
        raise IndexError(f"split {split!r} of shapes has scenes 0 to {size - 1}, not {index}")
    rng = np.random.default_rng((SEED, key, index))
    count = int(rng.integers(objects[0], objects[1] + 1))
    return tuple(labels[i] for i in rng.choice(len(labels), count, replace=False)), rng


def draw(labels: tuple[str, ...], rng: np.random.Generator) -> Image.Image:
    """An RGB image of 64x64 pixels with one object per label, later ones in front."""
    side = SIZE * OVERSAMPLING
    canvas = _background(side, rng)
    for mask, box, tone in _objects(labels, rng):
        canvas.paste(tone, box, mask)
    small = np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.float32)
    grain = rng.normal(0, rng.uniform(2, 10), small.shape[:2])[..., None]
    return Image.fromarray((small + grain).clip(0, 255).astype(np.uint8))


def _objects(labels: tuple[str, ...], rng: np.random.Generator) -> Iterator[tuple[Image.Image, Box, Tone]]:
    """Silhouette, place and tone of each object on the large canvas, later ones in front."""
    side = SIZE * OVERSAMPLING
    for (x, y, radius), label in zip(_placements(len(labels), rng), labels, strict=True):
        colour, shape = label.split()
        angle = rng.uniform(-math.pi / 9, math.pi / 9)
        mask = _mask(shape, max(round(radius * side), 1), angle)
        left, top = round(x * side - mask.width / 2), round(y * side - mask.height / 2)
        yield mask, (left, top, left + mask.width, top + mask.height), _paint(COLOURS[colour], rng)


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    """A smooth texture of greyish tones, coarse or fine."""
    cells = int(rng.integers(2, 12))
    grey = rng.uniform(40, 215) + rng.normal(0, 28, (cells, cells, 1))
    texture = (grey + rng.normal(0, 14, (cells, cells, 3))).clip(0, 255).astype(np.uint8)
    return Image.fromarray(texture).resize((side, side), Image.Resampling.BICUBIC)


def _placements(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(x, y, radius) of each object as fractions of the image.

    Of 12 tries the one that covers the earlier objects least, so that crowded scenes overlap a little.
    """
    placed: list[tuple[float, float, float]] = []
    for _ in range(count):
        radius = rng.uniform(*RADIUS)
        best, best_gap = (0.0, 0.0, radius), -math.inf  # any try is better
        for x, y in rng.uniform(radius, 1 - radius, (12, 2)):
            gap = min((math.hypot(x - a, y - b) - radius - r for a, b, r in placed), default=1.0)
            if gap > best_gap:
                best, best_gap = (x, y, radius), gap
            if gap > 0:
                break
        placed.append(best)
    return placed


def _paint(hue: int, rng: np.random.Generator) -> Tone:
    """A tone of the hue: +-9 degrees, saturated, of varying brightness."""
    h = (hue + rng.uniform(-9, 9)) % 360 / 60
    s, v = rng.uniform(0.7, 1.0), rng.uniform(0.6, 1.0)
    channels = [v - v * s * max(0.0, min(k, 4 - k, 1)) for k in ((n + h) % 6 for n in (5, 3, 1))]
    red, green, blue = (round(255 * c) for c in channels)
    return red, green, blue


def _polar(radii: list[float], start: float = -math.pi / 2) -> list[tuple[float, float]]:
    """Points at the given radii, evenly spaced around the origin, the first at the top."""
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(start + i * step), r * math.sin(start + i * step)) for i, r in enumerate(radii)]


def _heart() -> list[tuple[float, float]]:
    """The classical heart curve, scaled to the unit disc."""
    ts = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17)
        for t in ts
    ]


def _moon() -> list[tuple[float, float]]:
    """A disc less a disc of the same size, 0.75 to its right."""
    horn = math.acos(0.375)  # where the circles cross
    outer = [horn + (2 * math.pi - 2 * horn) * i / 24 for i in range(25)]
    inner = [math.pi + (math.pi - horn) - (2 * math.pi - 2 * horn) * i / 24 for i in range(25)]
    left = [(math.cos(t) + 0.2, math.sin(t)) for t in outer]
    bite = [(0.95 + math.cos(t), math.sin(t)) for t in inner if math.cos(t) < -0.375]
    return left + bite


OUTLINES: dict[str, list[tuple[float, float]]] = {  # points in [-1, 1] x [-1, 1], y downwards
    "circle": _polar([1.0] * 40),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "star": _polar([1.0, 0.42] * 5),
    "cross": [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3),
              (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "ring": _polar([1.0] * 40),
    "heart": _heart(),
    "moon": _moon(),
    "arrow": [(-1, -0.25), (0.1, -0.25), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.25), (-1, 0.25)],
    "diamond": [(0, -1), (0.6, 0), (0, 1), (-0.6, 0)],
    "house": [(0, -1), (0.9, -0.15), (0.65, -0.15), (0.65, 0.9), (-0.65, 0.9), (-0.65, -0.15), (-0.9, -0.15)],
    "hourglass": [(-0.85, -1), (0.85, -1), (0.12, 0), (0.85, 1), (-0.85, 1), (-0.12, 0)],
    "flower": _polar([0.72 + 0.28 * math.cos(5 * 2 * math.pi * i / 60) for i in range(60)]),
}  # fmt: skip
HOLES = {"ring": _polar([0.55] * 40), "flower": _polar([0.22] * 16)}


def _mask(shape: str, radius: int, angle: float) -> Image.Image:
    """The silhouette of a shape, turned by `angle`, in a box that fits any turn."""
    half = math.ceil(radius * 1.45)
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius

    def placed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(half + x * cos - y * sin, half + x * sin + y * cos) for x, y in points]

    mask = Image.new("L", (2 * half, 2 * half))
    pen = ImageDraw.Draw(mask)
    pen.polygon(placed(OUTLINES[shape]), fill=255)
    if shape in HOLES:
        pen.polygon(placed(HOLES[shape]), fill=0)
    return mask
