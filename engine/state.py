"""What a checkpoint of a training holds: everything to go on from, and to rebuild the model elsewhere.

A model is rebuilt from `config`, the number of `seen` labels, `texts` and the CLIP that `clip` names; neither the
configuration file nor an annotation of the training is needed.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["TrainingState", "load_state", "save_state"]


class TrainingState(NamedTuple):
    """A training between two steps; tensors, numbers, texts and containers of them only."""

    method: str  # MODEL.METHOD
    model: dict[str, Tensor]  # what is trained, by name
    ema: dict[str, Tensor] | None  # running averages of the same
    optimizers: dict[str, Any]
    scaler: dict[str, Any]  # of the loss in half precision
    random: dict[str, Any]  # all global generators
    epoch: int  # under way, from 1
    batch: int  # done of that epoch
    step: int  # done since the start
    best: float  # validation mAP of GZSL, in percent; -1 before the first
    best_epoch: int  # when it was reached; 0 before the first
    config: str  # the whole configuration as YAML
    seen: list[str]  # labels
    unseen: list[str]
    texts: dict[str, str]  # of labels that do not take the template
    images: str  # fingerprint of the training list
    clip: str  # identity of the frozen CLIP
    calibration: dict[str, Any] | None = None  # of the probabilities (`tagging/calibration.py`), once it was fitted


PLAIN = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool}
KINDS: dict[str, type | tuple[type, ...]] = {  # field -> what it can be
    **dict.fromkeys(("method", "config", "images", "clip"), str),
    **dict.fromkeys(("model", "optimizers", "scaler", "random", "texts"), dict),
    **dict.fromkeys(("epoch", "batch", "step", "best_epoch"), int),
    **dict.fromkeys(("seen", "unseen"), list),
    **dict.fromkeys(("ema", "calibration"), (dict, NoneType)),
    "best": (int, float),
}


def save_state(path: str | Path, state: TrainingState) -> None:
    """Writes the state as a whole or not at all. Raises CheckpointError as `save_checkpoint`."""
    save_checkpoint(path, state._asdict())


def load_state(path: str | Path) -> TrainingState:
    """What `save_state` wrote, tensors on the CPU.

    Raises:
        CheckpointError: as `load_checkpoint`, or if the file holds something else than a training, or weights that are
            not finite.
    """
    content = load_checkpoint(path)
    wanted = set(TrainingState._fields)
    if isinstance(content, dict):
        content = TrainingState._field_defaults | content
    if not isinstance(content, dict) or (differing := sorted(wanted ^ content.keys(), key=str)):
        what = f"{differing[0]!r} is on one side only" if isinstance(content, dict) else "no fields"
        raise CheckpointError(f"{path} holds no training of this version: {what}")
    if wrong := _wrong(content):
        raise CheckpointError(f"{path} holds no training: {wrong}")
    return TrainingState(**content)


def _wrong(content: Mapping[str, Any]) -> str | None:
    """What cannot be in a checkpoint that `save_state` wrote, in words; None if nothing is."""
    for name, kinds in KINDS.items():
        if not isinstance(content[name], kinds) or isinstance(content[name], bool):
            return f"its {name} is a {type(content[name]).__name__}"
    for name in ("epoch", "batch", "step", "best_epoch"):
        if content[name] < (name == "epoch"):
            return f"its {name} is {content[name]}"
    if not math.isfinite(content["best"]):
        return f"its best is {content['best']}"
    for name in ("seen", "unseen"):
        if not all(isinstance(label, str) for label in content[name]):
            return f"its {name} labels are not all texts"
    return _wrong_tensor("model", content["model"]) or _wrong_tensor("ema", content["ema"] or {})


def _wrong_tensor(name: str, tensors: Mapping[Any, Any]) -> str | None:
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            return f"its {name} holds a {type(tensor).__name__} under {key!r}"
        if tensor.dtype not in PLAIN or tensor.layout != torch.strided or tensor.is_meta:
            return f"{key} of its {name} is no plain tensor"
        if not tensor.isfinite().all():
            return f"{key} of its {name} is not finite"
    return None
