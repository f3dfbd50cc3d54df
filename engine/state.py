"""What a checkpoint of a training holds: everything to go on from, and to rebuild the model elsewhere.

A model is rebuilt from `config`, the number of `seen` labels, `texts` and the CLIP that `clip` names; neither the
configuration file nor an annotation of the training is needed.
"""

from pathlib import Path
from typing import Any, NamedTuple

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


def save_state(path: str | Path, state: TrainingState) -> None:
    """Writes the state as a whole or not at all. Raises CheckpointError as `save_checkpoint`."""
    save_checkpoint(path, state._asdict())


def load_state(path: str | Path) -> TrainingState:
    """What `save_state` wrote, tensors on the CPU.

    Raises:
        CheckpointError: as `load_checkpoint`, or if the file holds something else than a training.
    """
    content = load_checkpoint(path)
    wanted = set(TrainingState._fields)
    if isinstance(content, dict):
        content = TrainingState._field_defaults | content
    if not isinstance(content, dict) or (differing := sorted(wanted ^ content.keys(), key=str)):
        what = f"{differing[0]!r} is on one side only" if isinstance(content, dict) else "no fields"
        raise CheckpointError(f"{path} holds no training of this version: {what}")
    return TrainingState(**content)
