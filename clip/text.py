"""The text tower of the frozen CLIP: label names to label features, with and without label prompts.

The tower is causal and a feature is read at the end-of-text token, so nothing behind a text's end is computed, and what
all texts begin with is computed once (`clip.packed`). Whatever does not depend on the prompts is computed once for a
list of names and kept.

C labels, F tokens that all texts begin with, S others of all texts together, T of the longest text, W trunk width, D
joint width, P prompts.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import run_block
from clip.packed import Layout, Texts, few_at_a_time, layout_of, run_ends, run_texts, run_to_ends, shared_tokens

__all__ = ["NO_TEXTS", "Bare", "Prefix", "TextEncoder"]

NO_TEXTS: Mapping[str, str] = MappingProxyType({})
KEPT_LISTS = 8  # label lists whose constants are kept
TOGETHER = 512  # texts that are computed at once where they may be many


class Prefix(NamedTuple):
    """What the names alone decide."""

    texts: Texts  # in front of the first prompted block
    layout: Layout
    plain: Tensor  # (C, D), features of the frozen tower without prompts, not normalised


class Bare(NamedTuple):
    """Names without a template, as they stand behind a learned context (`clip.contexts`)."""

    tokens: Tensor  # (C, 1 + T), int64: start, name, full stop, end, zeros; cut at the end of the longest
    ends: Tensor  # (C,), position of the end-of-text token


class TextEncoder(nn.Module):
    """Label names to features in the joint space.

    Args:
        text: open_clip's text tower: token_embedding, positional_embedding, transformer, ln_final, text_projection.
        tokenize: texts to (C, context) token ids.
        template: such as "A photo of a {}."; filled with each name.
        texts: for names that do not take the template, the text instead.
        prompted: 0-based blocks that may hold prompts.
    """

    def __init__(
        self,
        text: Any,
        tokenize: Callable[[list[str]], Tensor],
        *,
        template: str,
        prompted: Sequence[int],
        texts: Mapping[str, str] = NO_TEXTS,
    ) -> None:
        super().__init__()
        self.text, self.tokenize, self.template, self.texts = text, tokenize, template, dict(texts)
        self.blocks = list(text.transformer.resblocks)  # a plain list: registered below `text` already
        self.prompted = bool(prompted)
        self.fork = min(prompted, default=len(self.blocks) - 1)
        self._kept: OrderedDict[tuple, Any] = OrderedDict()

    @property
    def width(self) -> int:
        """W."""
        return self.text.token_embedding.weight.shape[1]

    @property
    def joint_width(self) -> int:
        """D."""
        return self.text.text_projection.shape[1]

    def forward(self, names: Sequence[str], prompts: Mapping[int, Tensor]) -> Tensor:
        """Features (C, D) of the names, not normalised; `prompts` maps blocks to (P, W), shared by all labels."""
        texts, layout, plain = self.prefix(names)
        if not prompts:
            return plain
        if torch.is_grad_enabled():  # what the backward pass needs of all texts is kept anyway
            return self._prompted(texts, layout, prompts)
        return torch.cat([self._prompted(*part, prompts) for part in few_at_a_time(texts, layout, TOGETHER)])

    def prefix(self, names: Sequence[str]) -> Prefix:
        """What the names alone decide, computed once for each of the latest lists of names."""
        return self._latest(self._read_prefix, names)

    def bare(self, names: Sequence[str]) -> Bare:
        """What stands behind a learned context, read once for each of the latest lists of names."""
        return self._latest(self._read_bare, names)

    def tokens(self, names: Sequence[str]) -> Tensor:
        """What the tower reads of the names: (C, context), int64, on the CPU."""
        return self.tokenize(self.filled(names, self.template))

    def filled(self, names: Sequence[str], template: str) -> list[str]:
        """The text of each name: its own, or the template with it."""
        return [self.texts.get(name) or template.format(name) for name in names]

    def features(self, texts: Sequence[str]) -> Tensor:
        """Features (C, D) of whole texts by the frozen tower without prompts, not normalised; nothing of it is kept."""
        device = self.text.positional_embedding.device
        batches = (texts[start : start + TOGETHER] for start in range(0, len(texts), TOGETHER))
        return torch.cat([self._encode_prefix(self.tokenize(list(batch)).to(device)).plain for batch in batches])

    def averaged(self, names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Features (C, D) of the names over several templates: each normalised, their mean, that normalised.

        A name with a text of its own has that text in the place of all templates.
        """
        each = [F.normalize(self.features(self.filled(names, template)), dim=-1) for template in templates]
        return F.normalize(torch.stack(each).mean(0), dim=-1)

    def bare_tokens(self, names: Sequence[str]) -> Tensor:
        """What it reads of them behind a learned context: (C, context), int64, on the CPU.

        "traffic light." of traffic_light, as in CoOp; a text in the place of the template is that text here too.
        """
        return self.tokenize([self.texts.get(name) or f"{name.replace('_', ' ')}." for name in names])

    def pool(self, ends: Tensor) -> Tensor:
        """Features (C, D) of what the last block gives at the end of each text, (C, W)."""
        return self.text.ln_final(ends) @ self.text.text_projection

    def _latest(self, compute: Callable[[Sequence[str], torch.device], Any], names: Sequence[str]) -> Any:
        """What `compute` makes of the names, kept for the latest lists; the least recently used is forgotten first."""
        device = self.text.positional_embedding.device
        key = (compute.__name__, tuple(names), device)
        if key not in self._kept:
            self._kept[key] = compute(names, device)
            if len(self._kept) > KEPT_LISTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read_prefix(self, names: Sequence[str], device: torch.device) -> Prefix:
        return self._encode_prefix(self.tokens(names).to(device))

    @torch.no_grad()
    def _encode_prefix(self, tokens: Tensor) -> Prefix:
        ends = tokens.argmax(-1)  # end-of-text has the largest id
        count = shared_tokens(tokens, ends)
        # Kept for later calls, which may run at another precision: full precision, whoever asks first.
        with torch.autocast(tokens.device.type, enabled=False):
            parts = [
                self._through(*part, count) for part in zip(tokens.split(TOGETHER), ends.split(TOGETHER), strict=True)
            ]
        own, plain = (torch.cat([part[k] for part in parts]) for k in (1, 2))
        return Prefix(Texts(parts[0][0], own), layout_of(ends + 1 - count), plain)

    def _through(self, tokens: Tensor, ends: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is in front of the first prompted block, which nobody asks for where there is none, and the features."""
        layout, positions = layout_of(ends + 1 - count), self.text.positional_embedding
        where = count + layout.place
        front = self.text.token_embedding(tokens[:1, :count]) + positions[:count]
        texts = Texts(front, self.text.token_embedding(tokens[layout.text, where]) + positions[where])
        for block in self.blocks[: self.fork]:
            texts = run_texts(block, texts, layout)
        own = texts.own if self.prompted else texts.own[:0]
        return texts.front, own, self.pool(run_to_ends(self.blocks[self.fork :], texts, layout))

    def _read_bare(self, names: Sequence[str], device: torch.device) -> Bare:
        tokens = self.bare_tokens(names)
        ends = tokens.argmax(-1)  # end-of-text has the largest id
        return Bare(tokens[:, : int(ends.max()) + 1].to(device), ends.to(device))

    def _prompted(self, texts: Texts, layout: Layout, prompts: Mapping[int, Tensor]) -> Tensor:
        """Features (C, D) of what is in front of the first prompted block."""
        *inner, last = range(self.fork, len(self.blocks))
        for index in inner:
            texts = self._prompted_block(self.blocks[index], texts, layout, prompts.get(index))
        return self.pool(self._prompted_ends(self.blocks[last], texts, layout, prompts.get(last)))

    def _prompted_block(self, block: Any, texts: Texts, layout: Layout, prompts: Tensor | None) -> Texts:
        """Eq. (2): prompts stand behind start-of-text for one block."""
        if prompts is None:
            return run_texts(block, texts, layout)
        if self._is_full(texts, layout, prompts):
            return self._cut_block(block, texts, layout, prompts)
        out = run_texts(block, _with_prompts(texts, prompts), layout)
        return Texts(torch.cat([out.front[:, :1], out.front[:, 1 + len(prompts) :]], 1), out.own)

    def _prompted_ends(self, block: Any, texts: Texts, layout: Layout, prompts: Tensor | None) -> Tensor:
        """The end of each text, (C, W), behind such a block."""
        if prompts is None:
            return run_ends(block, texts, layout)
        if self._is_full(texts, layout, prompts):
            return self._cut_block(block, texts, layout, prompts).own[layout.ends]
        return run_ends(block, _with_prompts(texts, prompts), layout)

    def _is_full(self, texts: Texts, layout: Layout, prompts: Tensor) -> bool:
        """Whether the context has no room for the prompts in front of the longest text."""
        return len(prompts) + texts.front.shape[1] + layout.longest > len(self.text.positional_embedding)

    def _cut_block(self, block: Any, texts: Texts, layout: Layout, prompts: Tensor) -> Texts:
        """The context does not grow: tokens that prompts would push out at its end sit the block out."""
        x, count = layout.whole(texts), len(prompts)
        kept = len(self.text.positional_embedding) - count
        sequence = torch.cat([x[:, :1], prompts.to(x.dtype).expand(len(x), -1, -1), x[:, 1:kept]], 1)
        out = run_block(block, sequence, causal=True)
        x = torch.cat([out[:, :1], out[:, 1 + count :], x[:, kept:]], 1)
        shared = texts.front.shape[1]
        return Texts(x[:1, :shared], layout.packed(x[:, shared:]))


def _with_prompts(texts: Texts, prompts: Tensor) -> Texts:
    front = texts.front
    return texts._replace(front=torch.cat([front[:, :1], prompts.to(front.dtype)[None], front[:, 1:]], 1))
