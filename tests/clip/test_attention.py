"""Attention against NumPy in float64, whichever way it is computed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip import attention as module
from clip.attention import attention


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expected(q, k, v):
    q, k, v = (t.detach().double().numpy() for t in (q, k, v))
    weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("batch", [(5,), (2, 3)], ids=["images", "heads"])
@pytest.mark.parametrize("at_once", [1, 100, 2**20])  # products for one item, for three, for all
def test_bf16_on_a_cpu_is_near_float64_however_much_is_computed_at_once(monkeypatch, batch, at_once):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    q, k, v = drawn(*batch, 4, 16), drawn(*batch, 7, 16, seed=1), drawn(*batch, 7, 16, seed=2)
    found = attention(*(t.bfloat16() for t in (q, k, v)))
    assert (found.dtype, found.shape) == (torch.bfloat16, (*batch, 4, 16))
    np.testing.assert_allclose(found.float().numpy(), expected(q, k, v), atol=0.03)


def test_bf16_on_a_cpu_does_not_use_the_kernel_that_gains_nothing_from_it(monkeypatch):
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *_, **__: pytest.fail("the kernel ran"))
    attention(*drawn(3, 2, 4, 8).bfloat16())


def test_gradients_in_bf16_are_near_those_of_float32():
    full = [drawn(2, 3, 5, 8, seed=seed).requires_grad_() for seed in range(3)]
    rough = [t.detach().bfloat16().requires_grad_() for t in full]
    for tensors in (full, rough):
        attention(*tensors).float().square().sum().backward()
    for exact, found in zip(full, rough, strict=True):
        assert F.cosine_similarity(exact.grad.flatten(), found.grad.float().flatten(), dim=0) > 0.999


def test_keys_that_all_images_share_need_no_copies_of_their_own():
    q, k = drawn(3, 4, 8).bfloat16(), drawn(6, 8, seed=1).bfloat16().expand(3, -1, -1)
    np.testing.assert_allclose(attention(q, k, k).float().numpy(), expected(q, k, k), atol=0.03)


@pytest.mark.parametrize("how", [{}, {"causal": True}, {"mask": torch.ones(5, 5, dtype=torch.bool).tril()}])
def test_float32_is_torchs_own_to_the_bit(how):
    q, k, v = drawn(3, 2, 3, 5, 8)
    own = F.scaled_dot_product_attention(q, k, v, how.get("mask"), is_causal=how.get("causal", False))
    assert torch.equal(attention(q, k, v, **how), own)
