"""The ResNet trunk against open_clip's own tower, and against what releases of DualCoOp and its successors computed."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import ModifiedResNet
from torch import nn

from clip.load import load_clip
from clip.resnet import ResNetTrunk

DATA = Path(__file__).parents[1] / "data"
LIMIT = 1e-5  # of ||ours - theirs|| / ||theirs||


def shaken(module):
    """Weights and statistics that are not those of the start, where residual branches end in zeros."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value += 0.2 * (torch.rand_like(value) if name.endswith("running_var") else torch.randn_like(value))
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def visual():
    return shaken(load_clip("RN-tiny", "random", seed=1).visual)


def trunk_of(visual, positions="bicubic"):
    return ResNetTrunk(visual, positions=positions).eval()


def images(count=2, height=64, width=64):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def with_positions(visual, positions):
    """The tower with other positional embeddings (1 + N, W)."""
    changed = copy.deepcopy(visual)
    changed.attnpool.positional_embedding = nn.Parameter(positions, requires_grad=False)
    return changed


def resized(positions, rows, columns, **how):
    """Positional embeddings (1 + N, W) of a square grid for another one, by torch's own interpolation."""
    side = int((len(positions) - 1) ** 0.5)
    map_ = F.interpolate(positions[1:].T.reshape(1, -1, side, side), (rows, columns), align_corners=False, **how)
    return torch.cat([positions[:1], map_.flatten(2)[0].T])


def by_masked_attention(visual, batch):
    """The pool's outputs where every token sees itself alone, by torch's multi-head attention: (B, 1 + N, D)."""
    x = stage_of(visual, batch).flatten(2).permute(2, 0, 1)
    x = torch.cat([x.mean(0, keepdim=True), x]) + visual.attnpool.positional_embedding[:, None]
    pool, alone = visual.attnpool, torch.full((len(x), len(x)), float("-inf")).fill_diagonal_(0)
    found, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], pool.num_heads, None,
        torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]), None, None, False, 0.0, pool.c_proj.weight,
        pool.c_proj.bias, training=False, need_weights=False, attn_mask=alone, use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight, v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return found.transpose(0, 1)


def stage_of(visual, batch):
    """What open_clip's own pass has behind the last stage."""
    seen = []
    hook = visual.layer4.register_forward_hook(lambda _, inputs, output: seen.append(output))  # noqa: ARG005
    visual.forward_intermediates(batch, intermediates_only=True)
    hook.remove()
    return seen[0]


def test_global_features_are_those_of_open_clip(visual):
    close(trunk_of(visual).global_features(images()), visual(images()))


def test_regions_are_the_pools_outputs_where_each_sees_itself_alone_the_mean_first(visual):
    trunk, expected = trunk_of(visual), by_masked_attention(visual, images())
    close(trunk.dense_features(images()).regions, expected[:, 1:])
    close(trunk.regions_with_mean(images()), expected)
    assert not torch.allclose(trunk.global_features(images()), expected[:, 0], atol=1e-2)


def test_the_feature_map_is_the_last_stage(visual):
    close(trunk_of(visual).feature_map(images()).map, stage_of(visual, images()))
    assert trunk_of(visual).width == 128


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(96, 96), (32, 96), (128, 64)])
def test_images_of_other_sizes_are_seen_as_by_a_tower_with_interpolated_positions(visual, size, how):
    grid = size[0] // 32, size[1] // 32
    made = with_positions(visual, resized(visual.attnpool.positional_embedding, *grid, mode=how))
    trunk, batch = trunk_of(visual, how), images(2, *size)
    close(trunk.global_features(batch), made(batch))
    close(trunk.dense_features(batch).regions, by_masked_attention(made, batch)[:, 1:])


def test_without_positions_all_is_as_by_a_tower_whose_positions_are_zero(visual):
    zero = with_positions(visual, torch.zeros_like(visual.attnpool.positional_embedding))
    trunk = trunk_of(visual, None)
    found = trunk.regions_with_mean(images())
    close(trunk.global_features(images()), zero(images()))
    close(found, by_masked_attention(zero, images()))
    close(found[:, 1:].mean(1), found[:, 0])  # projections are linear
    assert not torch.allclose(found, trunk_of(visual).regions_with_mean(images()), atol=1e-2)


def test_weights_are_registered_once(visual):
    assert {name.split(".")[0] for name in trunk_of(visual).state_dict()} == {"visual"}


def error(found, expected):
    expected = torch.from_numpy(expected.astype(np.float32))
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("case", ["map", "map_large"])
def test_regions_of_a_map_are_those_of_dualcoops_release(case):
    file = np.load(DATA / "release_dualcoop.npz")
    visual = ModifiedResNet([1, 1, 1, 1], output_dim=32, heads=1, image_size=224, width=2).requires_grad_(False)
    for name, parameter in visual.attnpool.named_parameters():
        if not name.startswith(("q_proj", "k_proj")):  # what dense features do not read
            parameter.copy_(torch.from_numpy(file[f"dense/param/{name}"]))
    stage = torch.from_numpy(file[f"dense/in/{case}"]).float()
    assert error(trunk_of(visual).regions_of_stage(stage), file[f"dense/out/regions.{case}"]) < LIMIT


@pytest.fixture(scope="module")
def ancestor():
    """What TRM-ML's public ancestors computed, and the trunk with their ResNet, which has no positional embedding."""
    file = np.load(DATA / "release_trm_parts.npz")
    visual = ModifiedResNet([1, 1, 1, 1], output_dim=16, heads=1, width=2)
    state = {
        name.removeprefix("clip/visual."): torch.from_numpy(file[name])
        for name in file.files if name.startswith("clip/visual.")
    }  # fmt: skip
    missing = set(visual.load_state_dict(state, strict=False).missing_keys)
    assert {name for name in missing if not name.endswith("num_batches_tracked")} == {"attnpool.positional_embedding"}
    return file, trunk_of(visual.requires_grad_(False), None), torch.from_numpy(file["image"]).float()


def test_the_last_stage_is_that_of_trm_mls_ancestors(ancestor):
    file, trunk, image = ancestor
    assert error(trunk.feature_map(image).map, file["layer4_map"]) < LIMIT


def test_regions_are_those_of_trm_mls_ancestors(ancestor):
    file, trunk, image = ancestor
    regions = F.normalize(trunk.dense_features(image).regions, dim=-1)
    assert error(regions, file["region_features.normalised"]) < LIMIT


def test_pooled_features_tell_labels_apart_as_in_trm_mls_ancestors(ancestor):
    file, trunk, image = ancestor
    positive, negative = (
        F.cosine_similarity(trunk.global_features(image)[:, None], torch.from_numpy(file[f"text.{side}"]), dim=-1)
        for side in ("positive", "negative")
    )
    logits = (positive - negative) * float(np.exp(file["param/temperature"]))  # its Eq. (1), with both prompts
    assert error(logits, file["logits.attention_pool"]) < LIMIT
