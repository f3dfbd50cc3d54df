"""Checkpoints: files of tensors and plain values that are written whole or not at all and run no code when read."""

import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.atomic import WriteError, atomic_write
from errors import UserError
from files import damaged_part
from parallel import world_size

__all__ = ["CheckpointError", "load_checkpoint", "random_state", "save_checkpoint", "set_random_state"]

FORMAT = "RAM checkpoint"
VERSION = 2  # raised whenever older code could misread a newer file


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be written, cannot be read, or belongs to something else."""


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Writes `content` such that `load_checkpoint` gives it back to the bit.

    An older file of that name stays as it is until the new one is complete.

    Args:
        path: in a folder that exists.
        content: tensors, numbers, strings, booleans and None in any nesting of dicts, lists and tuples.

    Raises:
        CheckpointError: if a value is of another type, or the file cannot be written.
    """
    _require_plain(content, "content")
    try:
        with atomic_write(path) as file:
            torch.save({"format": FORMAT, "version": VERSION, "content": content}, file)
    except WriteError as error:
        raise CheckpointError(str(error)) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `save_checkpoint` was given, with all tensors on the CPU.

    Raises:
        CheckpointError: if there is no such file, it is damaged, it holds objects whose loading could run code,
            or it was not written by `save_checkpoint` of this version.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"no checkpoint at {path}: train first, or name another file")
    _require_intact(path)
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is not loaded: it holds objects whose loading could run code") from error
    except Exception as error:  # an archive of something else fails in many ways
        raise CheckpointError(f"{path} is a zip archive, but not a checkpoint") from error
    if not isinstance(payload, dict) or payload.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this project's training")
    if (version := payload.get("version")) != VERSION:
        raise CheckpointError(f"{path} has format version {version}, this code reads version {VERSION}")
    return payload["content"]


def random_state() -> dict[str, Any]:
    """The states of all global generators: torch on the CPU and on every GPU, numpy's legacy one, `random`.

    Holds only what `save_checkpoint` accepts.
    """
    drawn: Any = np.random.get_state()  # noqa: NPY002 - libraries still draw from it
    kind, keys, position, has_gauss, gauss = drawn
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": (version, words, next_gauss),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` gave.

    GPU states are restored for as many GPUs as both machines have; a run resumed on other hardware goes on
    with other random numbers there. Processes of which each has a GPU all draw what the first one does.
    """
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))
    torch.set_rng_state(state["torch"])
    states = state["cuda"] if world_size() == 1 else state["cuda"][:1] * torch.cuda.device_count()
    for index, gpu_state in enumerate(states[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(gpu_state, index)


def _require_intact(path: str | Path) -> None:
    """Compares the checksums of all parts, which torch.load leaves out."""
    try:
        damaged = damaged_part(path)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint; take an earlier one") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {damaged} is wrong; take an earlier one")


def _require_plain(value: Any, where: str) -> None:
    """Refuses at once what `load_checkpoint` would refuse after the training."""
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():
            _require_plain(key, f"the key {key!r} of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):
            _require_plain(item, f"{where}[{index}]")
    elif value is not None and type(value) not in (Tensor, torch.nn.Parameter, bool, int, float, str):
        raise CheckpointError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold: make it plain")
