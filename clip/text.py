"""The text tower of the frozen CLIP: label names to label features, with and without label prompts.

The tower is causal and a feature is read at the end-of-text token, so nothing behind the longest name's
end is computed. Whatever does not depend on the prompts is computed once for a list of names and kept.

C labels, T tokens up to the longest name's end, W trunk width, D joint width, P prompts.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import run_block

__all__ = ["NO_TEXTS", "Bare", "Prefix", "TextEncoder"]

NO_TEXTS: Mapping[str, str] = MappingProxyType({})
KEPT_LISTS = 8  # label lists whose constants are kept
TOGETHER = 512  # texts that are computed at once where they may be many


class Prefix(NamedTuple):
    """What the names alone decide."""

    x: Tensor  # (C, T, W), in front of the first prompted block
    ends: Tensor  # (C,), position of the end-of-text token
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
        self.fork = min(prompted, default=len(self.blocks))
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
        x, ends, plain = self.prefix(names)
        if not prompts:
            return plain
        for index in range(self.fork, len(self.blocks)):
            x = self._prompted_block(self.blocks[index], x, prompts.get(index))
        return self.pool(x, ends)

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

    def pool(self, x: Tensor, ends: Tensor) -> Tensor:
        """Features (C, D) of what the last block gives, (C, T, W), read at positions (C,)."""
        last = x[torch.arange(len(x), device=x.device), ends]  # (C, W)
        return self.text.ln_final(last) @ self.text.text_projection

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
        parts = zip(tokens[:, : int(ends.max()) + 1].split(TOGETHER), ends.split(TOGETHER), strict=True)
        # Kept for later calls, which may run at another precision: full precision, whoever asks first.
        with torch.autocast(tokens.device.type, enabled=False):
            x, plain = map(torch.cat, zip(*(self._through(*part) for part in parts), strict=True))
        return Prefix(x, ends, plain)

    def _through(self, tokens: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
        """What is in front of the first prompted block, which nobody asks for where there is none, and `plain`."""
        x = self.text.token_embedding(tokens) + self.text.positional_embedding[: tokens.shape[1]]
        for block in self.blocks[: self.fork]:
            x = run_block(block, x, causal=True)
        rest = x
        for block in self.blocks[self.fork :]:
            rest = run_block(block, rest, causal=True)
        return x if self.fork < len(self.blocks) else x[:, :0], self.pool(rest, ends)

    def _read_bare(self, names: Sequence[str], device: torch.device) -> Bare:
        tokens = self.bare_tokens(names)
        ends = tokens.argmax(-1)  # end-of-text has the largest id
        return Bare(tokens[:, : int(ends.max()) + 1].to(device), ends.to(device))

    def _prompted_block(self, block: Any, x: Tensor, prompts: Tensor | None) -> Tensor:
        """Eq. (2): prompts stand behind start-of-text for one block.

        The context does not grow: tokens that they would push out at its end sit the block out.
        """
        if prompts is None:
            return run_block(block, x, causal=True)
        count = len(prompts)
        kept = min(x.shape[1], len(self.text.positional_embedding) - count)
        sequence = torch.cat([x[:, :1], prompts.to(x.dtype).expand(len(x), -1, -1), x[:, 1:kept]], 1)
        out = run_block(block, sequence, causal=True)
        return torch.cat([out[:, :1], out[:, 1 + count :], x[:, kept:]], 1)
