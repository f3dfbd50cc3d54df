"""Trained embeddings of the words that the texts of all labels share; names keep their frozen ones (stage 2 of MKT).

    start  There  is  a  traffic  light  in  the  scene  end
    trained-----------                   -------------------

A label that has a text of its own in the place of the template shares with it what both begin and end with, at least
the marks of start and end.

C labels, R different words of the template, W trunk width, D joint width.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.packed import Layout, Texts, layout_of, run_to_ends, shared_tokens
from clip.text import TextEncoder

__all__ = ["TemplateWords"]


class TemplateWords(nn.Module):
    """Token embeddings of the template's words, start and end included, to be trained: (R, W).

    Where the name stands is seen from what the template makes of two names.

    Args:
        text: the text tower, which is not changed, with the template.
    """

    tokens: Tensor

    def __init__(self, text: TextEncoder) -> None:
        super().__init__()
        first, second = (_written(row) for row in text.tokenize([text.template.format(n) for n in ("dog", "cat")]))
        self.before, self.after = _shared(first, second), _shared(first[::-1], second[::-1])  # the latter from the end
        self.ids = sorted({*self.before, *self.after})
        self.register_buffer("tokens", torch.tensor(self.ids))  # checkpoints say which words they hold
        self.rows = nn.Parameter(text.text.token_embedding.weight.detach()[self.ids].clone())
        self._kept: tuple[tuple[str, ...], tuple[Tensor, Tensor, int, Layout]] | None = None

    def forward(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """Label features (C, D), not normalised.

        Args:
            text: as above.
            names: of the labels.
        """
        tokens, places, count, layout = self._laid_out(text, names)
        where = count + layout.place
        texts = Texts(
            self._embedded(text, tokens[:1, :count], places[:1, :count], torch.arange(count, device=tokens.device)),
            self._embedded(text, tokens[layout.text, where], places[layout.text, where], where),
        )
        return text.pool(run_to_ends(text.blocks, texts, layout))

    def _embedded(self, text: TextEncoder, tokens: Tensor, places: Tensor, where: Tensor) -> Tensor:
        """What enters the tower for some tokens."""
        words, frozen = F.embedding(places.clamp(min=0), self.rows), text.text.token_embedding(tokens)
        return torch.where((places >= 0)[..., None], words, frozen) + text.text.positional_embedding[where]

    def _laid_out(self, text: TextEncoder, names: Sequence[str]) -> tuple[Tensor, Tensor, int, Layout]:
        """Tokens and their rows, (C, context) each, and what the texts share; kept for the latest list of names."""
        if self._kept is None or self._kept[0] != tuple(names):
            tokens = text.tokens(names)
            places = self._places(tokens)
            ends = tokens.argmax(-1)
            # A word of the template and the same word in a name are not the same.
            count = shared_tokens(torch.where(places >= 0, -1 - places, tokens), ends)
            layout = layout_of((ends + 1 - count).to(self.tokens.device))
            self._kept = tuple(names), (tokens.to(self.tokens.device), places.to(self.tokens.device), count, layout)
        return self._kept[1]

    def places(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """Which row each token of the labels' texts is: (C, context), int64, on the CPU; -1 for tokens of names."""
        return self._places(text.tokens(names))

    def _places(self, tokens: Tensor) -> Tensor:
        places = torch.full_like(tokens, -1)
        for place, row in zip(places, tokens, strict=True):
            ids = _written(row)
            begins, ends = len(_shared(ids, self.before)), len(_shared(ids[::-1], self.after))
            for index in (*range(begins), *range(len(ids) - ends, len(ids))):
                place[index] = self.ids.index(ids[index])
        return places


def _written(tokens: Tensor) -> list[int]:
    """Token ids up to and with the end of the text, which has the largest id."""
    return tokens[: int(tokens.argmax()) + 1].tolist()


def _shared(first: Iterable[int], second: Iterable[int]) -> list[int]:
    """What two texts have in common at their beginning."""
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]
