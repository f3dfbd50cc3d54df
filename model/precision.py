"""What of a method is stored in half precision, so that mixed precision converts it once and not in every pass.

Autocast converts float32 weights wherever they are multiplied, and keeps the result for trained ones alone. The frozen
image tower, nearly all of the work, is therefore stored as it is computed with: weights and biases of its convolution,
of the projections of attention and of the MLPs. Float32 stay

    what is trained               so that small steps are not rounded away; autocast converts it
    LayerNorm, embeddings, proj   read in float32 or small; the main stream between the blocks is float32 too
    the text tower                all scores rest on it, and it is hardly any work: most of it runs once for a list

fp16 holds OpenAI's weights without loss, bf16 rounds any to 8 bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from clip.image import ImageTrunk
from model.method import Method

__all__ = ["store_in", "stored_in"]

MULTIPLIED = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)


def store_in(dtype: torch.dtype | None, *methods: Method) -> None:
    """Stores the frozen image towers of methods in a precision for good; None: nothing is changed.

    The methods have to run under autocast of that dtype then. Towers stay as they are if one of the methods
    computes with its own in float32 (`Method.mixes`), as methods may share one.
    """
    for parameter in _matrices(*methods) if dtype is not None else ():
        parameter.data = parameter.data.to(dtype)


@contextmanager
def stored_in(dtype: torch.dtype | None, *methods: Method) -> Iterator[None]:
    """`store_in` for as long as the context lasts; what was stored before comes back to the bit."""
    kept = [(parameter, parameter.data) for parameter in _matrices(*methods)]
    try:
        store_in(dtype, *methods)
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data


def _matrices(*methods: Method) -> list[nn.Parameter]:
    """Frozen weights and biases of what multiplies in the image towers, each once."""
    if not all(method.mixes for method in methods):
        return []
    parts = [part for method in methods for name in method.frozen for part in method.get_submodule(name).modules()]
    towers = [part.visual for part in parts if isinstance(part, ImageTrunk)]
    found = [
        parameter
        for tower in towers
        for part in tower.modules()
        if isinstance(part, MULTIPLIED)
        for parameter in part.parameters(recurse=False)
        if not parameter.requires_grad
    ]
    return list(dict.fromkeys(found))
