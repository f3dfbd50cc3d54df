"""Learned contexts: vectors in front of the names of labels, in the input embedding of the frozen text tower.

CoOp (Zhou et al., IJCV 2022, https://github.com/KaiyangZhou/CoOp) puts n vectors where a template has its words:

    [start, v_1, ..., v_n, name, ".", end] + positional embedding --> all blocks, causal --> feature at the end

One context serves all labels, or each label has one of its own. The release runs all 77 positions for every label.
Here nothing behind the longest name's end is computed, and start and a shared context, which by causality do not depend
on what follows, run through the tower once for all labels: names attend to their keys and values. Both are exact.

C labels, n vectors, T tokens of the longest name with full stop and end, P = 1 + n places in front of it, W trunk
width, D joint width, h heads, d = W / h.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip.blocks import project_qkv, run_block
from clip.load import TextError
from clip.text import Bare, TextEncoder

__all__ = ["Context", "assembled", "encode_behind", "random_context", "word_context"]


def random_context(count: int, width: int) -> Tensor:
    """Vectors (count, width) drawn from N(0, 0.02^2), CoOp's usual start."""
    return 0.02 * torch.randn(count, width)


def word_context(text: TextEncoder, words: str) -> Tensor:
    """Embeddings (n, W) of the n tokens of words such as "a photo of a"; features then are those of that template.

    Raises:
        clip.load.TextError: if there are no words, or more than CLIP reads.
    """
    tokens = text.tokenize([words])[0]
    inside = tokens[1 : int(tokens.argmax())]  # between start and end of the text
    return text.text.token_embedding.weight[inside.to(text.text.token_embedding.weight.device)].detach().clone()


class Context(nn.Module):
    """A context that all labels share.

    Args:
        initial: (n, W), what it starts as.
        recompute: keep only what enters each block, and compute the rest again in the backward pass (gradient
            checkpointing): less memory with many labels, more time.
    """

    def __init__(self, initial: Tensor, *, recompute: bool) -> None:
        super().__init__()
        self.vectors = nn.Parameter(initial)
        self.recompute = recompute

    def forward(self, text: TextEncoder, names: Sequence[str], rows: Tensor | None = None) -> Tensor:
        """Features (C, D) of the names behind the context, not normalised.

        Args:
            text: the frozen text tower.
            names: C of them, or more.
            rows: (C,), int64, which of them; None: all.

        Raises:
            clip.load.TextError: if a name is too long to stand behind the context.
        """
        bare = text.bare(names)
        places = len(text.text.positional_embedding) - len(self.vectors)
        if bare.tokens.shape[1] > places:
            longest = names[int(bare.ends.argmax())]
            raise TextError(
                f"the label {longest!r} is too long to stand behind a context of {len(self.vectors)} vectors, which "
                f"leaves {places - 2} tokens; shorten it, or lower MODEL.CONTEXT.COUNT"
            )
        if rows is not None:
            bare = Bare(bare.tokens[rows], bare.ends[rows])
        return encode_behind(text, bare, self.vectors, recompute=self.recompute)


def encode_behind(text: TextEncoder, names: Bare, context: Tensor, *, recompute: bool = False) -> Tensor:
    """Features (C, D) of names behind a context, not normalised; gradients reach the context.

    Args:
        text: the frozen text tower.
        names: what `TextEncoder.bare` gives.
        context: (n, W), shared by all names, or (C, n, W), one for each.
        recompute: see `Context`.
    """
    front, rest = assembled(text, names, context)
    positions = text.text.positional_embedding
    front, rest = front + positions[: front.shape[1]], rest + positions[front.shape[1] :][: rest.shape[1]]
    # Every name sees all that stands in front of it, and of the rest what does not follow. (T, P + T)
    ahead = torch.ones(rest.shape[1], front.shape[1] + rest.shape[1], dtype=torch.bool, device=rest.device)
    mask = ahead.tril(front.shape[1])
    for block in text.blocks:
        if recompute and torch.is_grad_enabled():
            front, rest = checkpoint(
                _advance, block, front, rest, mask, use_reentrant=False, preserve_rng_state=False
            )  # fmt: skip
        else:
            front, rest = _advance(block, front, rest, mask)
    return text.pool(rest, names.ends - 1)  # start stands in front


def assembled(text: TextEncoder, names: Bare, context: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the tower, without positions: start and context (1 or C, P, W), and the names (C, T, W)."""
    embedded = text.text.token_embedding(names.tokens)  # (C, 1 + T, W)
    vectors = (context if context.ndim == 3 else context[None]).to(embedded.dtype)
    return torch.cat([embedded[: len(vectors), :1], vectors], 1), embedded[:, 1:]


def _advance(block: Any, front: Tensor, rest: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both parts of the sequences behind a block; the front sees nothing of the rest."""
    own = project_qkv(block, front)
    q, *keys_and_values = project_qkv(block, rest)
    k, v = (
        torch.cat([ahead.expand(len(rest), -1, -1, -1), behind], 2)  # (C, h, P + T, d)
        for ahead, behind in zip(own[1:], keys_and_values, strict=True)
    )
    return run_block(block, front, own, causal=True), run_block(block, rest, (q, k, v), mask=mask)
