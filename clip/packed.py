"""Texts that begin alike: what they share runs once, what each has of its own runs without padding.

In a causal tower a token sees what stands in front of it alone. So the tokens that all texts begin with (start, prompts
or a context, the first words of a template) are the same in every text and are computed once. The others lie one text
behind the other, and only attention looks at them text by text. Both are exact.

C texts, F tokens in front, S own tokens of all texts together, T of the longest, W trunk width, h heads, d = W / h.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clip.blocks import attend, behind_attention, project_qkv, run_block

__all__ = [
    "Layout", "Texts", "few_at_a_time", "layout_of", "run_ends", "run_texts", "run_to_ends", "shared_tokens",
]  # fmt: skip


class Layout(NamedTuple):
    """Where own tokens belong."""

    text: Tensor  # (S,), int64, of which text each is, in order
    place: Tensor  # (S,), int64, which of that text's own tokens, from 0
    ends: Tensor  # (C,), int64, which of all is the last one of each text
    longest: int  # T

    def padded(self, own: Tensor) -> Tensor:
        """What belongs to own tokens, (1, h, S, d), by text: (C, h, T, d), zeros behind the end of a text."""
        slots = self.text * self.longest + self.place
        empty = own.new_zeros(len(self.ends) * self.longest, own.shape[1], own.shape[3])
        return empty.index_copy(0, slots, own[0].transpose(0, 1)).unflatten(0, (-1, self.longest)).transpose(1, 2)

    def whole(self, texts: "Texts") -> Tensor:
        """The texts as they stand, (C, F + T, W), zeros behind their ends."""
        own = self.padded(texts.own[None, None])[:, 0]
        return torch.cat([texts.front.expand(len(own), -1, -1), own], 1)

    def packed(self, padded: Tensor) -> Tensor:
        """The reverse, of (C, T, W): (S, W)."""
        return padded.flatten(0, 1)[self.text * self.longest + self.place]


class Texts(NamedTuple):
    """Texts within the tower."""

    front: Tensor  # (1, F, W), what all begin with; or (C, F, W), where each text begins with something of its own
    own: Tensor  # (S, W)


Run = Callable[[Any, Texts, Layout], Texts]


def shared_tokens(tokens: Tensor, ends: Tensor) -> int:
    """How many tokens all texts begin with, the end of none among them: F.

    Args:
        tokens: (C, context), int64.
        ends: (C,), position of the end of each text.
    """
    alike = (tokens == tokens[:1]).all(0).cumprod(0).sum()
    return min(int(alike), int(ends.min()))


def layout_of(lengths: Tensor) -> Layout:
    """The layout of texts with so many own tokens, (C,) int64, at least one each."""
    text = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
    behind = lengths.cumsum(0)
    place = torch.arange(len(text), device=lengths.device) - (behind - lengths)[text]
    return Layout(text, place, behind - 1, int(lengths.max()))


def few_at_a_time(texts: Texts, layout: Layout, count: int) -> Iterator[tuple[Texts, Layout]]:
    """`count` texts after another, of texts that begin alike, so that they can be run by themselves."""
    for lengths, ends in zip((layout.place[layout.ends] + 1).split(count), layout.ends.split(count), strict=True):
        last = int(ends[-1]) + 1
        yield texts._replace(own=texts.own[last - int(lengths.sum()) : last]), layout_of(lengths)


def run_texts(block: Any, texts: Texts, layout: Layout) -> Texts:
    """The texts behind a block."""
    in_front = project_qkv(block, texts.front)
    q, k, v = (layout.padded(part) for part in project_qkv(block, texts.own[None]))
    k, v = (_with_front(ahead, own) for ahead, own in zip(in_front[1:], (k, v), strict=True))
    # A text's tokens see all in front and those of its own before them; padding stands behind, where none looks.
    sees = torch.ones(layout.longest, k.shape[2], dtype=torch.bool, device=k.device).tril(k.shape[2] - layout.longest)
    mixed = layout.packed(attend(q, k, v, mask=sees))
    return Texts(run_block(block, texts.front, in_front, causal=True), behind_attention(block, texts.own, mixed))


def run_ends(block: Any, texts: Texts, layout: Layout) -> Tensor:
    """The last token of each text behind a block, (C, W); no other is computed further than its key and value."""
    in_front = project_qkv(block, texts.front)
    q, k, v = project_qkv(block, texts.own[None])
    k, v = (_with_front(ahead, layout.padded(own)) for ahead, own in zip(in_front[1:], (k, v), strict=True))
    last = layout.place[layout.ends]  # (C,)
    keys = torch.arange(k.shape[2], device=k.device) - (k.shape[2] - layout.longest)
    mixed = attend(q[0][:, layout.ends].transpose(0, 1)[:, :, None], k, v, mask=(keys <= last[:, None])[:, None, None])
    return behind_attention(block, texts.own[layout.ends], mixed[:, 0])


def run_to_ends(blocks: Sequence[Any], texts: Texts, layout: Layout, run: Run = run_texts) -> Tensor:
    """The last token of each text behind the last of the blocks, (C, W); `run` takes it through those in front."""
    *inner, last = blocks
    for block in inner:
        texts = run(block, texts, layout)
    return run_ends(last, texts, layout)


def _with_front(front: Tensor, own: Tensor) -> Tensor:
    """Keys or values of whole texts, (C, h, F + T, d)."""
    return torch.cat([front.expand(len(own), -1, -1, -1), own], 2)
