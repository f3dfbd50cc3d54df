"""The towers of a CLIP in training: open_clip's features, and those of images that are smaller than the model's."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.blocks import run_block

__all__ = ["build", "encode_images", "encode_texts", "normalise", "texts_in_parts"]

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD


def build(architecture: str, seed: int) -> Any:
    """A CLIP of one of clip/architectures with random weights, float32; sets torch's global seed."""
    torch.manual_seed(seed)
    open_clip.add_model_config(Path(__file__).resolve().parents[2] / "clip/architectures")
    return open_clip.create_model(architecture)


def normalise(images: list[np.ndarray]) -> Tensor:
    """(B, 3, H, W) float32 with CLIP's own mean and standard deviation."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def encode_images(model: Any, images: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """Features (B, D) of unit norm, those of open_clip's `encode_image`.

    Args:
        model: open_clip's CLIP, with a ViT.
        images: (B, 3, H, W), normalised, of the model's own size or smaller.
        corner: of smaller ones, see `Step`.
    """
    return F.normalize(encode_tokens(model, images, corner)[:, 0] @ model.visual.proj, dim=-1)


def encode_tokens(model: Any, images: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """All tokens (B, 1 + N, W) before the projection, the class token in front; arguments as of `encode_images`."""
    visual = model.visual
    patches = visual.conv1(images)  # (B, W, rows, columns)
    x = patches.flatten(2).transpose(1, 2)
    positions = _positions(visual.positional_embedding, patches.shape[2:], corner)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + positions
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        x = run_block(block, x)
    return visual.ln_post(x)


def _positions(embedding: Tensor, shape: tuple[int, ...], corner: tuple[int, int]) -> Tensor:
    """The embeddings of the class token and of `shape` patches from `corner` on, of the grid (1 + side^2, W)."""
    side = math.isqrt(len(embedding) - 1)
    if tuple(shape) == (side, side):
        return embedding
    (rows, columns), (top, left) = shape, corner
    window = embedding[1:].unflatten(0, (side, side))[top : top + rows, left : left + columns]
    return torch.cat([embedding[:1], window.flatten(0, 1)])


def encode_texts(model: Any, tokens: Tensor) -> Tensor:
    """Features (C, D) of unit norm, those of open_clip's `encode_text`; tokens are (C, 77), as its tokenizer gives."""
    ends = tokens.argmax(-1)
    tokens = tokens[:, : int(ends.max()) + 1]  # causal: nothing after the end is ever read
    x = model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]
    for block in model.transformer.resblocks:
        x = run_block(block, x, causal=True)
    return F.normalize(model.ln_final(x[torch.arange(len(x)), ends]) @ model.text_projection, dim=-1)


def texts_in_parts(model: Any, tokens: Tensor, parts: int) -> Tensor:
    """As `encode_texts`, by so many runs over texts of alike length, which pads them less."""
    if parts == 1:
        return encode_texts(model, tokens)
    order = tokens.argmax(-1).argsort(stable=True)
    features = torch.cat([encode_texts(model, tokens[chunk]) for chunk in order.chunk(parts)])
    return features[order.argsort()]
