"""The embedded worlds, whose scenes are drawn on demand and known by references such as `shapes:test/17`."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from datasets import shapes
from datasets.emoji import names, scenes
from datasets.records import DataError, Records
from datasets.shapes import Scene

__all__ = ["WORLDS", "World", "is_reference", "records_of", "scene_of", "world_of"]


class World(NamedTuple):
    """Scenes by split and number; `datasets/shapes.py` says what the functions are."""

    name: str
    labels: tuple[str, ...]
    unseen: tuple[str, ...]  # no training scene has them
    splits: Mapping[str, Any]  # with the fields `size` and `labels`
    side: int  # pixels
    most: int  # objects of a scene
    scene: Callable[[str, int], Scene]
    scene_labels: Callable[[str, int], tuple[str, ...]]
    scene_masks: Callable[[str, int], np.ndarray]

    @property
    def lists(self) -> tuple[str, ...]:
        """The splits that are no reserve for pre-training."""
        return tuple(split for split in self.splits if split != "pretrain")


WORLDS = {
    world.name: world
    for world in (
        World("shapes", shapes.LABELS, shapes.UNSEEN, shapes.SPLITS, shapes.SIZE, shapes.OBJECTS[1],
              shapes.scene, shapes.scene_labels, shapes.scene_masks),
        World("emoji", names.LABELS, names.UNSEEN, scenes.SPLITS, scenes.Layout().side, scenes.Layout().objects[1],
              scenes.scene, scenes.scene_labels, scenes.scene_masks),
    )
}  # fmt: skip


def is_reference(text: str) -> bool:
    """Whether this names scenes, such as `shapes:test/17` or `emoji:train`, and no file."""
    return text.partition(":")[0] in WORLDS and ":" in text


def world_of(reference: str) -> World:
    """The world that the reference is of.

    Raises:
        DataError: if there is no such world.
    """
    if not is_reference(reference):
        raise DataError(f"{reference!r} begins with no embedded world, as 'shapes:test'; there are {', '.join(WORLDS)}")
    return WORLDS[reference.partition(":")[0]]


def scene_of(reference: str) -> Scene:
    """The scene of a reference such as `shapes:test/17`.

    Raises:
        DataError: if there is no such scene.
    """
    world, split, number = _parsed(reference)
    try:
        return world.scene(split, number)
    except IndexError as error:
        raise DataError(str(error)) from error


def records_of(source: str) -> Records:
    """The labels of a split such as `shapes:train`, or of a part of it, `shapes:train[:100]`.

    Raises:
        DataError: if the world has no such split, or it is that of pre-training.
    """
    world = world_of(source)
    match = re.fullmatch(rf"\w+:({'|'.join(world.lists)})(?:\[(\d*):(\d*)\])?", source)
    if match is None:
        known = [f"{world.name}:{split}" for split in world.lists]
        raise DataError(
            f"{source!r} is no split of the embedded world; there are {', '.join(known)}, or a part, as {known[0]}[:9]"
        )
    split = match[1]
    chosen = range(world.splits[split].size)[slice(*(int(end) if end else None for end in match.groups()[1:]))]
    images = tuple(f"{world.name}:{split}/{i}" for i in chosen)
    return Records(images, tuple(world.scene_labels(split, i) for i in chosen), world.splits[split].labels, source)


def _parsed(reference: str) -> tuple[World, str, int]:
    world = world_of(reference)
    match = re.fullmatch(r"\w+:(\w+)/(\d+)", reference)
    if match is None or match[1] not in world.splits:
        raise DataError(f"{reference!r} is no scene of the embedded world, such as '{world.name}:test/17'")
    return world, match[1], int(match[2])
