"""Category-aware region learning: where a label is, and what is seen there (TRM-ML, Section 3.2, Eq. (2)-(4)).

A query of each label's own asks the positions of an image in one layer of a transformer decoder with one head:

    z1   = LN1(z0 + W6 softmax((W1 z0 + W2 Q)(W3 z0 + W4 Q)^T / sqrt(D)) W5 z0),    z0 = 0
    E    = (W7 z1 + W8 Q)(W9 f + W10 pos)^T / sqrt(D)                               energies, (C, N)
    r    = sigmoid(E)                                                               regions, Eq. (2)
    z2   = LN2(z1 + W12 softmax(E) W11 f)
    F^q  = LN4(LN3(z2 + W14 relu(W13 z2)))                                          query-level features, Eq. (3)
    f^r_c = sum_p r_cp f_p                                                          region-level features, Eq. (4)

Eq. (3) as printed is the cross-attention and its feed-forward part; the rest is the decoder of SADCL (the paper's
reference 29, by the same authors), whose numbers a test compares. With z0 = 0 the values of the self-attention are all
equal, so it adds one vector to all queries and tells no label of another.

The paper does not say whether the weights of the cross-attention sum to 1 too, or are the sigmoid of Eq. (2); both can
be had.

B images, N positions of a grid, C labels, D joint width.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Asked", "RegionDecoder", "grid_of", "region_features", "sine_positions"]


class Asked(NamedTuple):
    """Where the labels look."""

    content: Tensor  # (B, C, D), z1, or (1, C, D) where it is that of all images
    energies: Tensor  # (B, C, N), E, float32


class RegionDecoder(nn.Module):
    """The decoder layer with the queries of all labels.

    Args:
        labels: C.
        width: D.
        queries: (C, D), what Q begins as; None: drawn at random, the paper's other way.
        hidden: units of the feed-forward part.
        dropout: on the weights of both attentions, behind them, within and behind the feed-forward part.
        attention: weights of the cross-attention: softmax or sigmoid.
        self_attention: False leaves z1 = z0.
    """

    def __init__(
        self, *, labels: int, width: int, hidden: int, dropout: float, attention: str, self_attention: bool,
        queries: Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.queries = nn.Parameter(torch.randn(labels, width) if queries is None else queries.clone())
        self.attention, self.dropout = attention, nn.Dropout(dropout)
        self.own = _Attention(width, self.dropout) if self_attention else None
        self.cross = _Attention(width, self.dropout)
        self.linear1, self.linear2 = _linear(width, hidden), _linear(hidden, width)
        self.norm1 = nn.LayerNorm(width) if self_attention else None
        self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, features: Tensor, positions: Tensor, rows: Tensor) -> Asked:
        """Where the labels look.

        Args:
            features: (B, N, D), of the positions, not normalised.
            positions: (N, D), what `sine_positions` gives.
            rows: (L,), int64, which of the labels ask.
        """
        queries = self.queries[rows]
        images = 1 if self.own is None else len(features)  # dropout tells images apart, else all begin alike
        content = self.situated(torch.zeros_like(queries).expand(images, -1, -1), queries)
        return Asked(content, self.energies(content, queries, features, positions))

    def situated(self, content: Tensor, queries: Tensor) -> Tensor:
        """z1 (B, C, D) of z0 (B, C, D): what queries (C, D) learn of each other."""
        if self.own is None or self.norm1 is None:
            return content
        weights = self.own.scores(content, queries, content, queries).softmax(-1)
        return self.norm1(content + self.dropout(self.own.mixed(weights, content)))

    def energies(self, content: Tensor, queries: Tensor, features: Tensor, positions: Tensor) -> Tensor:
        """E (B, C, N), Eq. (2) before its sigmoid, before dropout."""
        return self.cross.scores(content, queries, features, positions)

    def features(self, asked: Asked, features: Tensor) -> Tensor:
        """F^q (B, C, D), Eq. (3): what the labels make of where they look."""
        return self.norm4(self.read(asked, features))

    def read(self, asked: Asked, features: Tensor) -> Tensor:
        """z3 (B, C, D), the output of the layer."""
        weights = asked.energies.softmax(-1) if self.attention == "softmax" else asked.energies.sigmoid()
        x = self.norm2(asked.content + self.dropout(self.cross.mixed(weights, features)))
        hidden = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(hidden)))


class _Attention(nn.Module):
    """One head; queries and keys are each the sum of a map of contents and a map of positions."""

    def __init__(self, width: int, dropout: nn.Dropout) -> None:
        super().__init__()
        self.dropout = dropout
        self.query_content, self.query_position = _linear(width, width), _linear(width, width)
        self.key_content, self.key_position = _linear(width, width), _linear(width, width)
        self.value, self.output = _linear(width, width), _linear(width, width)
        nn.init.zeros_(self.output.bias)

    def scores(self, asking: Tensor, asking_position: Tensor, asked: Tensor, asked_position: Tensor) -> Tensor:
        """Products over sqrt(D), (B, C, M), float32, of what asks (B, C, D) and what is asked (B, M, D)."""
        query = self.query_content(asking) + self.query_position(asking_position)
        key = self.key_content(asked) + self.key_position(asked_position)
        with torch.autocast(query.device.type, enabled=False):  # features are not normalised
            return query.float() @ key.float().transpose(1, 2) / math.sqrt(query.shape[-1])

    def mixed(self, weights: Tensor, asked: Tensor) -> Tensor:
        """(B, C, D): values by weights (B, C, M), through the output map."""
        return self.output(self.dropout(weights) @ self.value(asked))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A map whose weights are drawn as in the decoder's source."""
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    return linear


def region_features(energies: Tensor, features: Tensor) -> Tensor:
    """f^r_c = sum_p sigmoid(E_cp) f_p, Eq. (4): (B, C, D), float32. Only directions matter, so nothing is divided.

    Args:
        energies: (B, C, N), E.
        features: (B, N, D), not normalised.
    """
    with torch.autocast(energies.device.type, enabled=False):
        return energies.float().sigmoid() @ features.float()


def sine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed positional embeddings (N, D) of a grid, float32, row by row.

    With u = 2 pi i / (n + 1e-6) for i = 1 to n, entry 2j is sin(u / 10000^(4j/D)) and entry 2j + 1 the cosine of the
    same, j < D/4; the first D/2 entries are of the row, n the number of rows, the others of the column (DETR, SADCL).

    Args:
        rows: of the grid.
        columns: of it.
        width: D, a multiple of 4.
    """
    frequencies = 10000 ** (-4 * torch.arange(width // 4) / width)

    def along(count: int) -> Tensor:
        angles = 2 * math.pi * torch.arange(1, count + 1) / (count + 1e-6)
        waves = angles[:, None] * frequencies  # (n, D/4)
        return torch.stack([waves.sin(), waves.cos()], -1).flatten(1)  # (n, D/2)

    of_rows, of_columns = along(rows), along(columns)
    return torch.cat([of_rows[:, None].expand(-1, columns, -1), of_columns.expand(rows, -1, -1)], -1).flatten(0, 1)


def grid_of(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many positions of an image, whichever square patches its tower cuts it into."""
    rows = round(math.sqrt(count * height / width))
    return rows, count // rows
