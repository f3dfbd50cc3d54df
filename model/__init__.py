"""Methods, matchers, and how they are built; `model/method.py` is the contract to read first."""

from model.build import MATCHERS, METHODS, UNTRAINED, block_indices, build_method, build_zero_shot, load_towers
from model.method import Group, Method, ModelError, Recipe
from model.model import RAM, Labels, Recognition
from model.zero_shot import ZeroShotCLIP

__all__ = [
    "MATCHERS",
    "METHODS",
    "RAM",
    "UNTRAINED",
    "Group",
    "Labels",
    "Method",
    "ModelError",
    "Recipe",
    "Recognition",
    "ZeroShotCLIP",
    "block_indices",
    "build_method",
    "build_zero_shot",
    "load_towers",
]
