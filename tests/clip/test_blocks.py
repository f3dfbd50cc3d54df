"""The opened block against open_clip's own forward and NumPy."""

import numpy as np
import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn

from clip.blocks import (
    attend,
    attention_weights,
    project_qkv,
    project_values,
    run_block,
    run_block_at_start,
    run_block_on_values,
    self_aware_attention,
)


def block_of(width=48, heads=3, **settings):
    torch.manual_seed(0)
    block = ResidualAttentionBlock(width, heads, act_layer=QuickGELU, **settings).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.2)  # open_clip starts biases at zero, where they could be forgotten
    return block


def tokens(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("settings", [{}, {"ls_init_value": 0.3}])
def test_block_equals_that_of_open_clip(settings):
    block, x = block_of(**settings), tokens(2, 7, 48)
    torch.testing.assert_close(run_block(block, x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"ls_init_value": 0.3}])
def test_a_block_at_the_start_is_the_first_token_of_open_clips(settings):
    block, x = block_of(**settings), tokens(2, 7, 48)
    torch.testing.assert_close(run_block_at_start(block, x), block(x)[:, :1], rtol=1e-4, atol=1e-5)


def test_causal_block_equals_that_of_open_clip_under_its_mask():
    block, x = block_of(), tokens(2, 7, 48)
    mask = torch.full((7, 7), float("-inf")).triu_(1)
    torch.testing.assert_close(run_block(block, x, causal=True), block(x, attn_mask=mask), rtol=1e-4, atol=1e-5)


def test_masked_block_equals_that_of_open_clip_with_infinities_for_what_is_hidden():
    block, x = block_of(), tokens(2, 7, 48)
    sees = (tokens(2, 1, 7, 7, seed=3) > 0) | torch.eye(7, dtype=torch.bool)
    for image in range(2):
        hidden = torch.zeros(7, 7).masked_fill(~sees[image, 0], float("-inf"))
        expected = block(x[image : image + 1], attn_mask=hidden)
        torch.testing.assert_close(run_block(block, x, mask=sees)[image : image + 1], expected, rtol=1e-4, atol=1e-5)


def test_attention_weights_are_those_of_torchs_own_attention():
    block, x = block_of(), tokens(2, 7, 48)
    normed = block.ln_1(x)
    torch.testing.assert_close(attention_weights(block, x), block.attn(normed, normed, normed)[1])


@pytest.mark.parametrize("settings", [{}, {"ls_init_value": 0.3}])
def test_a_block_on_values_is_that_of_open_clip_where_tokens_see_themselves_alone(settings):
    block, x = block_of(**settings), tokens(2, 7, 48)
    alone = torch.full((7, 7), float("-inf")).fill_diagonal_(0)
    torch.testing.assert_close(run_block_on_values(block, x), block(x, attn_mask=alone), rtol=1e-4, atol=1e-5)


def test_given_projections_are_used_instead_of_those_of_x():
    block, x, other = block_of(), tokens(2, 7, 48), tokens(2, 7, 48, seed=2)
    torch.testing.assert_close(run_block(block, x, project_qkv(block, x)), run_block(block, x))
    assert not torch.allclose(run_block(block, x, project_qkv(block, other)), run_block(block, x))


def test_projections_are_split_into_heads_as_open_clip_does():
    block, x = block_of(), tokens(2, 7, 48)
    weight, bias = (p.detach().double().numpy() for p in (block.attn.in_proj_weight, block.attn.in_proj_bias))
    flat = block.ln_1(x).detach().double().numpy() @ weight.T + bias  # (2, 7, 144)
    for index, found in enumerate(project_qkv(block, x)):
        for head in range(3):
            start = 48 * index + 16 * head
            np.testing.assert_allclose(found[:, head].detach().numpy(), flat[..., start : start + 16], atol=1e-4)


def test_values_alone_are_the_values_of_all_projections():
    block, x = block_of(), tokens(2, 7, 48)
    torch.testing.assert_close(project_values(block, x), project_qkv(block, x)[2])


def test_self_aware_attention_is_the_softmax_of_the_values_with_themselves():
    block, v = block_of(), tokens(2, 3, 7, 16)
    weight, bias = (p.detach().double().numpy() for p in (block.attn.out_proj.weight, block.attn.out_proj.bias))
    values = v.double().numpy()
    mixed = softmax(values @ values.swapaxes(2, 3) / np.sqrt(16)) @ values  # (2, 3, 7, 16)
    expected = mixed.transpose(0, 2, 1, 3).reshape(2, 7, 48) @ weight.T + bias
    np.testing.assert_allclose(self_aware_attention(block, v).detach().numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"ls_init_value": 0.3}])
def test_a_block_on_values_is_one_in_which_each_token_sees_only_itself(settings):
    block, x = block_of(**settings), tokens(2, 7, 48)
    alone = torch.full((7, 7), float("-inf")).fill_diagonal_(0)
    torch.testing.assert_close(run_block_on_values(block, x), block(x, attn_mask=alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run_block_on_values(block, x[:, 2:4]), run_block_on_values(block, x)[:, 2:4])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_on_a_cpu_stays_within_rounding_of_float32(dtype, causal):
    q, k, v = tokens(3, 2, 3, 7, 16).to(dtype)
    found, expected = attend(q, k, v, causal=causal), attend(q.float(), k.float(), v.float(), causal=causal)
    assert found.dtype == dtype
    # Shares of the values sum to 1, and each is rounded to half of the distance to the next number.
    assert (found.float() - expected).abs().max() < torch.finfo(dtype).eps * v.float().abs().max()


def test_double_precision_is_not_rounded():
    q, k, v = tokens(3, 2, 3, 7, 16).double()
    weights = softmax(q.numpy() @ k.numpy().swapaxes(2, 3) / 4)
    expected = (weights @ v.numpy()).transpose(0, 2, 1, 3).reshape(2, 7, 48)
    np.testing.assert_allclose(attend(q, k, v).numpy(), expected, rtol=1e-12, atol=1e-13)


def test_half_precision_passes_gradients():
    q = tokens(1, 1, 3, 4).bfloat16().requires_grad_()
    attend(q, q, q).sum().backward()
    assert q.grad.dtype == torch.bfloat16
    assert q.grad.abs().sum() > 0
