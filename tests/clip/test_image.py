"""The image trunk against open_clip's own tower, and against tokens that are really appended."""

import copy

import numpy as np
import pytest
import torch
from open_clip.model import resize_pos_embed
from torch import nn

from clip.image import ImageTrunk, resize_positions
from clip.load import load_clip


@pytest.fixture(scope="module")
def visual():
    tower = load_clip("ViT-tiny-8", "random", seed=1).visual
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for parameter in tower.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # open_clip starts biases at zero
    return tower


def trunk_of(visual, adapted=(1, 2), saa_blocks=(0, 1, 2), factor=1.0, start=0, positions="bicubic"):
    return ImageTrunk(
        visual, adapted=adapted, saa_blocks=saa_blocks, ladder_factor=factor, ladder_start=start, positions=positions
    ).eval()


def images(count=2, height=32, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def prompts_for(*blocks, count=4):
    generator = torch.Generator().manual_seed(3)
    return {block: torch.randn(count, 64, generator=generator) for block in blocks}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def embed(visual, batch):
    """Tokens in front of the first block, (B, 17, W), 32 x 32 images."""
    x = visual.conv1(batch).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1)
    return visual.ln_pre(x + visual.positional_embedding)


def self_attention_of_values(block, x):
    """SAA through torch's own multi-head attention, made to see values as queries and keys."""
    attn, width = copy.deepcopy(block.attn), x.shape[-1]
    with torch.no_grad():
        attn.in_proj_weight.copy_(block.attn.in_proj_weight[2 * width :].repeat(3, 1))
        attn.in_proj_bias.copy_(block.attn.in_proj_bias[2 * width :].repeat(3))
    normed = block.ln_1(x)
    return attn(normed, normed, normed, need_weights=False)[0]


def both_streams(visual, batch, prompts, saa_blocks=(0, 1, 2), factor=1.0):
    """Main stream with prompts appended to the sequence and cut off behind the block, and local stream."""
    x = embed(visual, batch)
    local, after = x[:, 1:], []
    for index, block in enumerate(visual.transformer.resblocks):
        if index in saa_blocks:
            local = local + factor * self_attention_of_values(block, x)[:, 1:]
        length = x.shape[1]
        if index in prompts:
            x = torch.cat([x, prompts[index].expand(len(x), -1, -1)], 1)
        x = block(x)[:, :length]
        after.append(x)
    return x, local, after


def test_dense_features_are_patches_that_see_only_themselves_in_the_last_block(visual):
    trunk, batch = trunk_of(visual), images()
    features, regions = trunk.dense_features(batch)
    assert torch.equal(features, trunk.global_features(batch))
    assert torch.equal(trunk.regions_with_mean(batch), torch.cat([features[:, None], regions], 1))
    *earlier, last = visual.transformer.resblocks
    x = nn.Sequential(*earlier)(embed(visual, batch))
    alone = torch.full((17, 17), float("-inf")).fill_diagonal_(0)
    close(regions, visual.ln_post(last(x, attn_mask=alone)[:, 1:]) @ visual.proj)


def test_dense_features_can_be_the_local_features_of_rams_teacher(visual):
    batch = images()
    trunk = ImageTrunk(visual, adapted=(), saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions="bilinear",
                       regions="saa")  # fmt: skip
    features, regions = trunk.dense_features(batch)
    assert torch.equal(features, trunk.global_features(batch))
    _, local, _ = both_streams(visual, batch, {})
    close(regions, visual.ln_post(local) @ visual.proj)


def test_the_feature_map_is_open_clips_patches_behind_the_last_layer_norm(visual, monkeypatch):
    found = trunk_of(visual).feature_map(images(2, 32, 32))
    monkeypatch.setattr(visual, "output_tokens", True)
    _, patches = visual(images(2, 32, 32))
    close(found.map, patches.transpose(1, 2).reshape(2, 64, 4, 4))


@pytest.mark.parametrize("adapted", [(), (0,), (1, 2), (0, 2)])
def test_global_feature_without_prompts_is_that_of_open_clip(visual, adapted):
    trunk, batch = trunk_of(visual, adapted), images()
    close(trunk.finish(trunk.stem(batch), {}).cls, visual(batch))


def test_global_feature_with_prompts_is_that_of_appended_tokens(visual):
    trunk, batch, prompts = trunk_of(visual), images(), prompts_for(1, 2)
    x, _, _ = both_streams(visual, batch, prompts)
    found = trunk.finish(trunk.stem(batch), prompts).cls
    close(found, visual.ln_post(x[:, 0]) @ visual.proj)
    assert not torch.allclose(found, visual(batch), atol=1e-2)


def test_taps_are_the_patches_behind_each_adapted_block(visual):
    trunk, batch, prompts = trunk_of(visual, (0, 2)), images(), prompts_for(0, 2)
    _, _, after = both_streams(visual, batch, prompts)
    taps = trunk.finish(trunk.stem(batch), prompts).taps
    assert sorted(taps) == [0, 2]
    close(taps[0], after[0][:, 1:])
    close(taps[2], after[2][:, 1:])


@pytest.mark.parametrize(("saa_blocks", "factor"), [((0, 1, 2), 1.0), ((1,), 1.0), ((0, 2), 0.5)])
def test_local_stream_is_the_embedding_plus_the_chosen_self_aware_attentions(visual, saa_blocks, factor):
    trunk, batch, prompts = trunk_of(visual, (1, 2), saa_blocks, factor), images(), prompts_for(1, 2)
    _, local, _ = both_streams(visual, batch, prompts, saa_blocks, factor)
    close(trunk.finish(trunk.stem(batch), prompts).saa, local)


def test_features_do_not_depend_on_where_the_streams_part(visual):
    batch, prompts = images(), prompts_for(2)
    early, late = trunk_of(visual, (0, 1, 2)), trunk_of(visual, (2,))
    found, expected = early.finish(early.stem(batch), prompts), late.finish(late.stem(batch), prompts)
    close(found.cls, expected.cls)
    close(found.saa, expected.saa)
    close(found.taps[2], expected.taps[2])


def test_without_saa_the_local_stream_is_the_patches_behind_the_last_block(visual):
    trunk, batch, prompts = trunk_of(visual, (1, 2), ()), images(), prompts_for(1, 2)
    x, _, _ = both_streams(visual, batch, prompts)
    close(trunk.finish(trunk.stem(batch), prompts).saa, x[:, 1:])


def test_global_features_are_those_of_open_clip_and_keep_no_graph(visual):
    trunk, batch = trunk_of(visual), images().requires_grad_()
    found = trunk.global_features(batch)
    close(found, visual(batch))
    assert not found.requires_grad


def test_global_features_need_no_self_aware_attention(visual, monkeypatch):
    monkeypatch.setattr("clip.image.self_aware_attention", lambda *_: pytest.fail("computed"))
    trunk_of(visual).global_features(images())


@pytest.mark.parametrize(("start", "saa_blocks"), [(1, (1, 2)), (2, (2,)), (1, (2,))])
def test_local_stream_starts_from_what_enters_the_block_that_is_named(visual, start, saa_blocks):
    trunk, batch, prompts = trunk_of(visual, (1, 2), saa_blocks, 0.5, start), images(), prompts_for(1, 2)
    x, _, after = both_streams(visual, batch, prompts)
    local = after[start - 1][:, 1:]
    for block in saa_blocks:  # Eq. (5) as printed
        local = local + 0.5 * self_attention_of_values(visual.transformer.resblocks[block], after[block - 1])[:, 1:]
    close(trunk.finish(trunk.stem(batch), prompts).saa, local)


@pytest.mark.parametrize("adapted", [(1, 2), (2,), (0,)])
@pytest.mark.parametrize(("saa_blocks", "factor", "start"), [((0, 1, 2), 1.0, 0), ((2,), 0.5, 2), ((), 1.0, 0)])
def test_teacher_has_saa_in_every_block_and_a_factor_of_1_whatever_the_student_has(
    visual, adapted, saa_blocks, factor, start
):
    trunk, batch = trunk_of(visual, adapted, saa_blocks, factor, start), images()
    _, local, _ = both_streams(visual, batch, {})
    close(trunk.teacher_regions(trunk.stem(batch, teacher=True)), visual.ln_post(local) @ visual.proj)


def test_the_teachers_stream_is_computed_on_request_only(visual):
    assert trunk_of(visual).stem(images()).teacher is None


def test_asking_for_the_teacher_changes_nothing_for_the_student(visual):
    trunk, prompts = trunk_of(visual, saa_blocks=(1,)), prompts_for(1, 2)
    alone, beside = (trunk.finish(trunk.stem(images(), teacher=teacher), prompts) for teacher in (False, True))
    assert torch.equal(alone.saa, beside.saa)
    assert torch.equal(alone.cls, beside.cls)


def test_prompts_change_the_student_only(visual):
    trunk = trunk_of(visual)
    state = trunk.stem(images(), teacher=True)
    before = trunk.teacher_regions(state)
    student = trunk.project(trunk.finish(state, prompts_for(1, 2)).saa)
    assert torch.equal(trunk.teacher_regions(state), before)
    assert not torch.allclose(student, before, atol=1e-3)


def test_stem_and_teacher_keep_no_graph(visual):
    trunk, batch = trunk_of(visual), images().requires_grad_()
    state = trunk.stem(batch, teacher=True)
    assert not state.x.requires_grad
    assert not state.saa.requires_grad
    assert not trunk.teacher_regions(state).requires_grad


def test_gradients_reach_prompts_and_no_frozen_weight(visual):
    trunk = trunk_of(visual)
    prompts = {block: nn.Parameter(p) for block, p in prompts_for(1, 2).items()}
    features = trunk.finish(trunk.stem(images()), prompts)
    (features.cls.square().sum() + features.saa.square().sum()).backward()
    assert all(p.grad.abs().sum() > 0 for p in prompts.values())
    assert all(p.grad is None for p in trunk.parameters())


def test_weights_are_registered_once(visual):
    assert {name.split(".")[0] for name in trunk_of(visual).state_dict()} == {"visual"}


def test_width_is_that_of_the_trunk_and_the_grid_that_of_the_patches(visual):
    trunk = trunk_of(visual)
    assert trunk.width == 64
    assert trunk.stem(images(1, 24, 40)).grid == (3, 5)


def test_positions_of_the_own_grid_are_left_alone(visual):
    for how in ("bilinear", "bicubic"):
        assert resize_positions(visual.positional_embedding, (4, 4), (4, 4), how) is visual.positional_embedding


@pytest.mark.parametrize("grid", [(6, 6), (3, 5)])
def test_bicubic_positions_are_interpolated_as_open_clip_does(visual, grid):
    state = {"visual.positional_embedding": visual.positional_embedding}
    shell = nn.Module()
    shell.visual = nn.Module()
    shell.visual.grid_size = grid
    resize_pos_embed(state, shell)
    found = resize_positions(visual.positional_embedding, (4, 4), grid, "bicubic")
    close(found, state["visual.positional_embedding"])


@pytest.mark.parametrize("grid", [(6, 6), (8, 4), (3, 5)])
def test_bilinear_positions_are_weighted_means_of_the_four_nearest(visual, grid):
    patches = visual.positional_embedding[1:].detach().double().numpy().reshape(4, 4, -1)
    expected = np.zeros((*grid, patches.shape[-1]))
    for row, column in np.ndindex(grid):
        y, x = (np.clip((i + 0.5) * 4 / n - 0.5, 0, 3) for i, n in ((row, grid[0]), (column, grid[1])))
        top, left = min(int(y), 2), min(int(x), 2)
        for i, j in np.ndindex(2, 2):
            weight = (1 - abs(y - top - i)) * (1 - abs(x - left - j))
            expected[row, column] += weight * patches[top + i, left + j]
    found = resize_positions(visual.positional_embedding, (4, 4), grid, "bilinear")
    np.testing.assert_allclose(found[1:].detach(), expected.reshape(-1, expected.shape[-1]), atol=1e-5)
    assert torch.equal(found[0], visual.positional_embedding[0])


def test_positions_of_another_grid_with_as_many_regions_are_interpolated_too(visual):
    found = resize_positions(visual.positional_embedding, (4, 4), (2, 8), "bicubic")
    assert torch.equal(found[0], visual.positional_embedding[0])
    assert not torch.allclose(found, visual.positional_embedding, atol=1e-3)


@pytest.mark.parametrize("size", [(48, 48), (24, 40)])
def test_images_of_other_sizes_are_seen_as_by_an_open_clip_tower_of_that_size(visual, size):
    trunk, batch = trunk_of(visual), images(2, *size)
    resized = copy.deepcopy(visual)
    resized.grid_size = (size[0] // 8, size[1] // 8)
    state = {"visual.positional_embedding": visual.positional_embedding}
    shell = nn.Module()
    shell.visual = resized
    resize_pos_embed(state, shell)
    resized.positional_embedding = nn.Parameter(state["visual.positional_embedding"])
    close(trunk.finish(trunk.stem(batch), {}).cls, resized(batch))
