"""Softmax attention, by what is fastest for the device and the precision of its inputs.

B batch, h heads, N queries, M keys, d width of each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention"]

AT_ONCE = 2**20  # weights that are held at once, for them to stay in the cache of a CPU


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, (B, ..., N, d).

    Args:
        q: (B, ..., N, d).
        k: (B, ..., M, d).
        v: (B, ..., M, d).
        causal: every token sees those in front of it and itself; where M is N.
        mask: (..., N, M) or what broadcasts to it, bool, True where a token sees a key; not beside `causal`.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and mask is None and not causal:
        return _by_products(q, k, v)
    if q.device.type == "cpu" and q.dtype in (torch.float16, torch.bfloat16):
        # On CPUs the backward pass of half-precision attention is ten times slower than float32's.
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, is_causal=causal)
        return mixed.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as two matrix products: on CPUs these gain from bf16 in both directions, torch's own kernel does not."""
    few = max(1, AT_ONCE // (q.shape[-2] * k.shape[-2]))
    scale, unused = q.shape[-1] ** -0.5, q.new_zeros(1, 1, 1)
    parts = zip(*(t.flatten(0, -3).split(few) for t in (q, k, v)), strict=True)
    mixed = [torch.baddbmm(unused, a, b.mT, beta=0, alpha=scale).softmax(-1) @ c for a, b, c in parts]
    return torch.cat(mixed).unflatten(0, q.shape[:-2])
