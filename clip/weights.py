"""Files of CLIP weights, and fitting what they hold to a model.

TorchScript archives, PyTorch state dicts and safetensors become one dictionary of tensors. No code that a
file may hold is run: pickles are read with `weights_only=True`, safetensors hold tensors only, and TorchScript
archives are read without TorchScript. Checksums are compared where the format has them.

Names are OpenAI's throughout: visual.*, transformer.*, token_embedding.weight, positional_embedding,
ln_final.*, text_projection, logit_scale. Running statistics of BatchNorm are weights like the others; how many batches
they are of is not, since frozen towers never read it and some files leave it out.
"""

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clip.torchscript import is_torchscript, read_torchscript
from errors import UserError
from files import damaged_part

__all__ = [
    "Weights",
    "WeightsError",
    "canonical_name",
    "fill_model",
    "fingerprint",
    "read_weights",
    "weights_of",
]

OPENAI_ONLY = {"input_resolution", "context_length", "vocab_size"}  # OpenAI's archives carry them as buffers
NOT_PARAMETERS = OPENAI_ONLY | {"attn_mask", "transformer.embeddings.position_ids"}

NEVER_READ = ".num_batches_tracked"  # of BatchNorm

UNPACKED = 20  # times the size of a file; tensors are stored as they are, only source code is packed


class WeightsError(UserError, ValueError):
    """CLIP weights that are missing, broken or of another architecture, or a backbone that is not supported."""


class Weights(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]  # parameters under OpenAI's names, in the precision of the file
    openai: bool  # written by OpenAI, whose models use QuickGELU


def read_weights(path: Path, published: Mapping[str, str]) -> Weights:
    """The parameters in a file, on the CPU.

    Reads OpenAI's TorchScript archives, plain state dicts, training checkpoints of open_clip
    ({"state_dict": {"module. ..."}}) and safetensors.

    Args:
        path: .pt, .pth, .bin or .safetensors.
        published: name of each file that OpenAI publishes -> its URL, whose last folder is its SHA-256.
            An archive under such a name has to be that file.

    Raises:
        WeightsError: if the file is broken, holds something else, or would have to run code to be read.
    """
    download = f"; download {published[path.name]} again" if path.name in published else ""
    try:
        if not _is_as_published(path, published):
            _require_intact(path)
        content = _read(path)
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001 - the readers raise whatever arbitrary bytes lead them to
        raise WeightsError(f"cannot read the CLIP weights {path}: {_reason(error)}{download}") from error
    state = _unwrap(content)
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{path} holds no state dict of a CLIP; set MODEL.CLIP_WEIGHTS to a file that does")
    tensors = {canonical_name(name): tensor for name, tensor in state.items()}
    return Weights(_read_by_towers(tensors), openai=tensors.keys() >= OPENAI_ONLY)


def canonical_name(name: str) -> str:
    """OpenAI's name of a parameter; models of open_clip with a text tower of its own put it below "text."."""
    return name.removeprefix("text.")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """What a model's features depend on, under OpenAI's names."""
    return _read_by_towers({canonical_name(name): tensor for name, tensor in model.state_dict().items()})


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) over names, shapes and float32 values; neither order nor half precision change it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def fill_model(model: nn.Module, tensors: Mapping[str, Tensor], complaint: str) -> None:
    """Loads the tensors of `read_weights` into a model, strictly: each parameter, and nothing else.

    Raises:
        WeightsError: opening with `complaint`, if names or shapes differ.
    """
    given = dict(tensors)
    if "logit_scale" in given and given["logit_scale"].numel() == 1:
        given["logit_scale"] = given["logit_scale"].reshape(())  # some save it as a vector of one
    mismatch = _first_mismatch(given, weights_of(model))
    if mismatch is not None:
        raise WeightsError(f"{complaint}: {mismatch}; set MODEL.BACKBONE to the architecture of these weights")
    state = model.state_dict()
    model.load_state_dict({name: given.get(canonical_name(name), kept) for name, kept in state.items()}, strict=True)


def _read_by_towers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n: tensor for n, tensor in tensors.items() if n not in NOT_PARAMETERS and not n.endswith(NEVER_READ)}


def _first_mismatch(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first difference in names and shapes in words, or None."""
    for name, tensor in expected.items():
        if name not in given:
            return f"{name} is missing"
        if given[name].shape != tensor.shape:
            return f"{name} is {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
    return next((f"{name} is not part of it" for name in given if name not in expected), None)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_torchscript(path):
        return read_torchscript(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _require_intact(path: Path) -> None:
    """Compares the checksums of a file that is a zip archive."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > UNPACKED * path.stat().st_size:
            raise WeightsError(f"{path} unpacks to more than {UNPACKED} times its size, which no weights do")
    if (damaged := damaged_part(path)) is not None:
        raise WeightsError(f"{path} is damaged: the checksum of {damaged} is wrong; get it again")


def _is_as_published(path: Path, published: Mapping[str, str]) -> bool:
    """Whether an archive is what OpenAI published under its name; WeightsError if it has the name alone."""
    if path.name not in published or not is_torchscript(path):
        return False
    url = published[path.name]
    expected = url.split("/")[-2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise WeightsError(
            f"{path} is not the file that OpenAI published (SHA-256 {digest[:12]}... instead of {expected[:12]}...): "
            f"truncated or altered; download {url} again"
        )
    return True


def _unwrap(content: Any) -> dict[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        return {}
    distributed = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if distributed else name: value for name, value in content.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    refused = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if refused:
        return f"it asks for {refused[1]}, and no code of a file is run; save its state dict instead"
    return "broken, truncated, or not a file of weights"
