"""One pre-norm transformer block of CLIP, opened up so that its values can be attended to again.

The weights stay in open_clip's `ResidualAttentionBlock`; the functions here read them.

B batch, N tokens, W trunk width, h heads, d = W / h.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clip.attention import attention

__all__ = [
    "attend",
    "attention_weights",
    "behind_attention",
    "project_qkv",
    "project_values",
    "run_block",
    "run_block_at_start",
    "run_block_on_values",
    "self_aware_attention",
]

Block = Any  # open_clip's ResidualAttentionBlock, whose parts a type checker takes for any module or tensor


def project_qkv(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of LN1(x), each (B, h, N, d); x is (B, N, W)."""
    q, k, v = _projections(block, block.ln_1(x), "qkv")
    return q, k, v


def project_values(block: Block, x: Tensor) -> Tensor:
    """The values alone."""
    return _projections(block, block.ln_1(x), "v")[0]


def _projections(block: Block, normed: Tensor, which: str) -> tuple[Tensor, ...]:
    """Neighbours among queries, keys and values, "kv" for example, of LN1(x) (B, N, W)."""
    attn, width = block.attn, normed.shape[-1]
    begin = "qkv".index(which) * width
    rows = slice(begin, begin + len(which) * width)
    projected = F.linear(normed, attn.in_proj_weight[rows], attn.in_proj_bias[rows])
    return tuple(projected.unflatten(-1, (len(which), attn.num_heads, -1)).permute(2, 0, 3, 1, 4))  # (B, h, N, d) each


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with the heads joined: (B, N, W).

    Args:
        q: (B, h, N, d).
        k: (B, h, M, d).
        v: (B, h, M, d).
        causal: every token sees those in front of it and itself; where M is N.
        mask: (B, 1, N, M) or what broadcasts to it, bool, True where a token sees a key; not beside `causal`.
    """
    mixed = attention(q, k, v, causal=causal, mask=mask)
    return mixed.transpose(1, 2).flatten(2).to(q.dtype)


def attention_weights(block: Block, x: Tensor) -> Tensor:
    """What each token of x (B, N, W) looks at in the block, mean over its heads: (B, N, N), rows sum to 1."""
    q, k, _ = project_qkv(block, x)
    return (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1).mean(1)


def run_block(block: Block, x: Tensor, qkv: tuple[Tensor, Tensor, Tensor] | None = None, *,
              causal: bool = False, mask: Tensor | None = None) -> Tensor:  # fmt: skip
    """The block's output (B, N, W) for x (B, N, W); `qkv` where the caller has projected x already.

    `causal` and `mask` are those of `attend`.
    """
    q, k, v = project_qkv(block, x) if qkv is None else qkv
    return behind_attention(block, x, attend(q, k, v, causal=causal, mask=mask))


def run_block_at_start(block: Block, x: Tensor) -> Tensor:
    """The first token of the block's output for x (B, N, W), (B, 1, W); the others give keys and values alone."""
    normed = block.ln_1(x)
    (q,), (k, v) = _projections(block, normed[:, :1], "q"), _projections(block, normed, "kv")
    return behind_attention(block, x[:, :1], attend(q, k, v))


def run_block_on_values(block: Block, x: Tensor) -> Tensor:
    """The block's output (B, N, W) where each token attends to itself alone, so to its own value.

    What is left of the attention is W_o v + b_o; shortcut and MLP stay. Tokens depend on nothing but themselves.
    """
    return behind_attention(block, x, project_values(block, x).transpose(1, 2).flatten(2))


def self_aware_attention(block: Block, v: Tensor) -> Tensor:
    """SAA of the paper's Eq. (3): the block's values attending to themselves, (B, N, W).

    softmax(v v^T / sqrt(d)) v through the block's own output projection; no parameter is added.

    Args:
        block: the frozen block whose values `v` are.
        v: (B, h, N, d).
    """
    return block.attn.out_proj(attend(v, v, v))


def behind_attention(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    """The block's output behind its attention, which made `mixed` (..., W) of x (..., W)."""
    x = x + block.ls_1(block.attn.out_proj(mixed))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
