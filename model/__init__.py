"""Methods, matchers, and how they are built; `model/method.py` is the contract to read first."""

from typing import Any

from model.build import (
    FIXED_LABELS,
    MATCHERS,
    METHODS,
    UNTRAINED,
    block_indices,
    build_method,
    build_zero_shot,
    load_towers,
)
from model.method import Group, Method, ModelError, Recipe
from model.model import RAM, Labels, Recognition
from model.peaks import PeakRAM
from model.zero_shot import ZeroShotCLIP

__all__ = [  # noqa: F822 - Tagger comes from __getattr__
    "FIXED_LABELS",
    "MATCHERS",
    "METHODS",
    "RAM",
    "UNTRAINED",
    "Group",
    "Labels",
    "Method",
    "ModelError",
    "PeakRAM",
    "Recipe",
    "Recognition",
    "Tagger",
    "ZeroShotCLIP",
    "block_indices",
    "build_method",
    "build_zero_shot",
    "load_towers",
]


def __getattr__(name: str) -> Any:
    """`Tagger`, which is built on everything else, is looked up when it is asked for."""
    if name == "Tagger":
        from tagging import Tagger

        return Tagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
