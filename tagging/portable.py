"""What a tagger is made from, read from a run, a checkpoint or an exported folder, and written as such a folder.

An exported folder holds `config.json` and `model.safetensors`, the layout of huggingface_hub's mixins: what was trained
and its calibration, the labels, and which CLIP it needs; no weights of CLIP, no paths, nothing that runs code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.atomic import atomic_write, make_folder
from engine.run import newest_run
from engine.state import TrainingState, load_state
from errors import UserError
from files import read_text

__all__ = ["Parts", "TaggerError", "checkpoint_of", "parts_of", "read_parts", "write_parts"]

FORMAT, VERSION = "open-vocabulary tagger", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TENSORS = ("mean", "std", "weight", "positives", "hits", "predicted")  # of a calibration


class TaggerError(UserError, ValueError):
    """A tagger that cannot be loaded, or something that cannot be asked of it."""


class Parts(NamedTuple):
    """Everything but the frozen CLIP."""

    config: str  # as YAML or JSON; MODEL and INPUT are enough
    state: dict[str, Tensor]  # what was trained, averaged where there is an average
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    texts: Mapping[str, str]  # of labels that do not take the template
    clip: str  # identity
    calibration: dict[str, Any] | None  # `Calibration.state()`


def checkpoint_of(place: Path) -> Path:
    """The best or last checkpoint of a run, of the newest run in a folder of runs, or the file itself.

    Raises:
        TaggerError: if there is none.
    """
    if place.is_file():
        return place
    folder = place if (place / "checkpoint.pth").is_file() else newest_run(place, "checkpoint.pth")
    if folder is None:
        raise TaggerError(f"{place} holds no run, checkpoint or exported tagger: train first, or name another folder")
    return folder / "best.pth" if (folder / "best.pth").is_file() else folder / "checkpoint.pth"


def read_parts(place: str | Path, *, averaged: bool = True) -> Parts:
    """The parts of a tagger.

    Args:
        place: a run, a folder of runs, a checkpoint, or an exported folder.
        averaged: take the running average of a checkpoint where it has one.

    Raises:
        TaggerError: if there is nothing of the kind, or it is broken.
        CheckpointError: likewise, of a checkpoint.
    """
    place = Path(place)
    if (place / CONFIG).is_file():
        return _read_folder(place)
    return parts_of(load_state(checkpoint_of(place)), averaged=averaged)


def parts_of(state: TrainingState, *, averaged: bool = True) -> Parts:
    """The parts of a checkpoint; averaged weights where it has them and they are wanted."""
    return Parts(
        state.config, state.ema if averaged and state.ema is not None else state.model, tuple(state.seen),
        tuple(state.unseen), state.texts, state.clip,
        state.calibration if averaged or state.ema is None else None,  # it was fitted on averaged weights
    )  # fmt: skip


def write_parts(folder: str | Path, parts: Parts) -> None:
    """Writes the folder; `parts.config` should hold no paths.

    Raises:
        WriteError: if the system refuses.
    """
    folder = Path(folder)
    tensors = {f"method.{name}": value.detach().cpu().contiguous() for name, value in parts.state.items()}
    calibration = parts.calibration
    if calibration is not None:
        tensors |= {f"calibration.{name}": calibration[name].cpu().contiguous() for name in TENSORS}
        calibration = {name: value for name, value in calibration.items() if name not in TENSORS}
    content = {
        "format": FORMAT, "version": VERSION, "clip": parts.clip, "seen": list(parts.seen),
        "unseen": list(parts.unseen), "texts": dict(parts.texts), "calibrated": calibration,
        "configuration": json.loads(parts.config),
    }  # fmt: skip
    make_folder(folder)
    with atomic_write(folder / WEIGHTS) as file:
        file.write(save(tensors))
    with atomic_write(folder / CONFIG, "w") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _read_folder(folder: Path) -> Parts:
    try:
        content = json.loads(read_text(folder / CONFIG))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise TaggerError(f"{folder / CONFIG} is no tagger of this version ({VERSION})")
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        _check(content)
        calibration = content["calibrated"]
        if calibration is not None:
            calibration = {**calibration, **{name: tensors[f"calibration.{name}"] for name in TENSORS}}
        trained = {k.removeprefix("method."): v for k, v in tensors.items() if k.startswith("method.")}
        return Parts(
            json.dumps(content["configuration"], ensure_ascii=False), trained, tuple(content["seen"]),
            tuple(content["unseen"]), dict(content["texts"]), content["clip"], calibration,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        if isinstance(error, TaggerError):
            raise
        raise TaggerError(f"{folder} is no exported tagger, or a broken one: {' '.join(str(error).split())}") from error


def _check(content: dict[str, Any]) -> None:
    """Refuses content of other types; ValueError names it."""
    for key in ("seen", "unseen"):
        names = content[key]
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len(set(names)) < len(names)
        ):
            raise ValueError(f"{key} is no list of different labels")
    if not all(isinstance(text, str) for text in content["texts"].values()):
        raise ValueError("texts are not all texts")
    if not isinstance(content["clip"], str) or not content["clip"]:
        raise ValueError("clip names no CLIP")
    if not isinstance(content["configuration"], dict) or not content["configuration"]:
        raise ValueError("configuration is empty")
