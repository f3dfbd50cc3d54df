"""Learned contexts: vectors in front of the names of labels, in the input embedding of the frozen text tower.

CoOp (Zhou et al., IJCV 2022, https://github.com/KaiyangZhou/CoOp) puts n vectors where a template has its words:

    [start, v_1, ..., v_n, name, ".", end] + positional embedding --> all blocks, causal --> feature at the end

One context serves all labels, or each label has one of its own. The release runs all 77 positions for every label.
Here start and a shared context run through the tower once for all labels, and names without padding (`clip.packed`).

C labels, n vectors, T tokens of the longest name with full stop and end, W trunk width, D joint width.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip.load import TextError
from clip.packed import Layout, Texts, layout_of, run_texts, run_to_ends
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
    """A context that all labels share, or one of each label's own.

    Args:
        initial: (n, W), what it starts as, or (C, n, W), what those of C labels start as.
        recompute: keep only what enters each block, and compute the rest again in the backward pass (gradient
            checkpointing): less memory with many labels, more time.
        named: whether names stand behind it; False: a full stop alone.
    """

    def __init__(self, initial: Tensor, *, recompute: bool, named: bool = True) -> None:
        super().__init__()
        self.vectors = nn.Parameter(initial)
        self.recompute, self.named = recompute, named

    def forward(self, text: TextEncoder, names: Sequence[str], rows: Tensor | None = None) -> Tensor:
        """Features (C, D) of the names behind the context, not normalised.

        Args:
            text: the frozen text tower.
            names: C of them, or more; where each label has its own context, all of them, in the order of the contexts.
            rows: (C,), int64, which of them; None: all.

        Raises:
            clip.load.TextError: if a name is too long to stand behind the context.
        """
        bare = text.bare(names if self.named else ("",) * len(names))
        vectors: Tensor = self.vectors
        count = vectors.shape[-2]
        places = len(text.text.positional_embedding) - count
        if bare.tokens.shape[1] > places:
            longest = names[int(bare.ends.argmax())]
            raise TextError(
                f"the label {longest!r} is too long to stand behind a context of {count} vectors, which leaves "
                f"{places - 2} tokens; shorten it, or lower MODEL.CONTEXT.COUNT"
            )
        if rows is not None:
            bare = Bare(bare.tokens[rows], bare.ends[rows])
            vectors = vectors[rows] if vectors.ndim == 3 else vectors
        return encode_behind(text, bare, vectors, recompute=self.recompute)


def encode_behind(text: TextEncoder, names: Bare, context: Tensor, *, recompute: bool = False) -> Tensor:
    """Features (C, D) of names behind a context, not normalised; gradients reach the context.

    Args:
        text: the frozen text tower.
        names: what `TextEncoder.bare` gives.
        context: (n, W), shared by all names, or (C, n, W), one for each.
        recompute: see `Context`.
    """
    texts, layout = assembled(text, names, context)
    again = partial(checkpoint, run_texts, use_reentrant=False, preserve_rng_state=False)
    run = again if recompute and torch.is_grad_enabled() else run_texts
    return text.pool(run_to_ends(text.blocks, texts, layout, run))


def assembled(text: TextEncoder, names: Bare, context: Tensor) -> tuple[Texts, Layout]:
    """What enters the tower: start and context in front, (1 or C, 1 + n, W), behind them the names."""
    embed, positions = text.text.token_embedding, text.text.positional_embedding
    vectors = context if context.ndim == 3 else context[None]
    start = embed(names.tokens[: len(vectors), :1])  # (1 or C, 1, W)
    front = torch.cat([start, vectors.to(start.dtype)], 1)
    layout = layout_of(names.ends)  # the start stands in front
    own = embed(names.tokens[layout.text, 1 + layout.place])
    return Texts(front + positions[: front.shape[1]], own + positions[front.shape[1] + layout.place]), layout
