"""The ladder against a plain NumPy computation of Eq. (4)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from clip.adapters import LadderLocalAdapter, TextGuidedSelection
from clip.image import TrunkFeatures

ROWS, COLUMNS, WIDTH, JOINT = 3, 4, 10, 6


def randomised(module):
    """Every parameter and statistic away from its default, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else 0.4 * drawn)
    return module.eval()


def selection(mask_kernel=3):
    return randomised(TextGuidedSelection(WIDTH, JOINT, mask_kernel=mask_kernel))


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolve(x, kernel):
    """Cross-correlation of (H, W, in) with (out, in, k, k), zeros around the border."""
    reach = kernel.shape[-1] // 2
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    out = np.zeros((*x.shape[:2], len(kernel)))
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]  # (k, k, in)
            out[row, column] = np.einsum("oikl,kli->o", kernel, window)
    return out


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def normalise(x, norm):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * norm["weight"] + norm["bias"]


def expected_selection(module, tap, labels):
    """Eq. (4) for one image: tap (N, W), labels (C, D)."""
    state = {name: value.double().numpy() for name, value in module.state_dict().items()}
    part = lambda name: {k.split(".")[1]: v for k, v in state.items() if k.startswith(f"{name}.")}  # noqa: E731
    features = tap.double().numpy().reshape(ROWS, COLUMNS, WIDTH)
    text = normalise(labels.double().numpy(), part("norm_text"))
    views = []
    for size in ("1x1", "3x3"):
        bn = part(f"bn{size}")
        view = convolve(features, state[f"conv{size}.weight"])
        view = (view - bn["running_mean"]) / np.sqrt(bn["running_var"] + 1e-5) * bn["weight"] + bn["bias"]
        view = gelu(view)
        weights = np.exp(normalise(view, part(f"norm_query{size}")) @ text.T / math.sqrt(JOINT))
        views.append(view + weights / weights.sum(-1, keepdims=True) @ text)
    both = np.concatenate(views, -1)
    maps = np.stack([both.mean(-1), both.max(-1)], -1)
    masks = 1 / (1 + np.exp(-convolve(maps, state["mask_conv.weight"])))
    mixed = views[0] * masks[..., :1] + views[1] * masks[..., 1:]
    return convolve(mixed, state["out_conv.weight"]).reshape(-1, WIDTH)


@pytest.mark.parametrize("mask_kernel", [3, 5])
def test_selection_is_equation_4(mask_kernel):
    module, tap, labels = selection(mask_kernel), drawn(2, ROWS * COLUMNS, WIDTH), drawn(5, JOINT, seed=2)
    found = module(tap, labels, (ROWS, COLUMNS)).detach().numpy()
    for image in range(2):
        np.testing.assert_allclose(found[image], expected_selection(module, tap[image], labels), atol=1e-4)


def test_selection_depends_on_the_labels_at_hand():
    module, tap, labels = selection(), drawn(1, ROWS * COLUMNS, WIDTH), drawn(5, JOINT, seed=2)
    few, all_of_them = (module(tap, chosen, (ROWS, COLUMNS)) for chosen in (labels[:2], labels))
    assert not torch.allclose(few, all_of_them, atol=1e-3)


def test_selection_does_not_depend_on_the_order_of_the_labels():
    module, tap, labels = selection(), drawn(1, ROWS * COLUMNS, WIDTH), drawn(5, JOINT, seed=2)
    torch.testing.assert_close(module(tap, labels.flip(0), (ROWS, COLUMNS)), module(tap, labels, (ROWS, COLUMNS)))


def test_gradients_reach_labels_and_every_parameter():
    module, labels = selection().train(), drawn(5, JOINT, seed=2).requires_grad_()
    module(drawn(2, ROWS * COLUMNS, WIDTH), labels, (ROWS, COLUMNS)).square().sum().backward()
    assert labels.grad.abs().sum() > 0
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def ladder(blocks):
    return randomised(LadderLocalAdapter(blocks, width=WIDTH, joint_width=JOINT, mask_kernel=3))


def trunk_features(*blocks, factor=1.0):
    taps = {block: drawn(2, ROWS * COLUMNS, WIDTH, seed=10 + block) for block in blocks}
    return TrunkFeatures(drawn(2, JOINT), drawn(2, ROWS * COLUMNS, WIDTH, seed=3), taps, factor, (ROWS, COLUMNS))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_ladder_adds_each_selection_of_its_own_tap_times_the_factor(factor):
    module, features, labels = ladder((1, 4)), trunk_features(1, 4, factor=factor), drawn(5, JOINT, seed=2)
    added = sum(module.selections[str(b)](features.taps[b], labels, features.grid) for b in (1, 4))
    torch.testing.assert_close(module(features, labels), features.saa + factor * added)


def test_ladder_without_blocks_is_the_local_stream_of_the_trunk():
    features = trunk_features()
    assert torch.equal(ladder(())(features, drawn(5, JOINT)), features.saa)


def test_ladder_of_vit_b_16_has_the_number_of_parameters_of_the_release():
    with torch.device("meta"):
        module = LadderLocalAdapter((9, 10, 11), width=768, joint_width=512, mask_kernel=3)
    assert sum(p.numel() for p in module.selections["9"].parameters()) == 4_330_532
    assert sum(p.numel() for p in module.parameters()) == 12_991_596


def test_batch_norm_moves_and_divides_as_in_the_release():
    norms = [module for module in selection().modules() if isinstance(module, nn.BatchNorm2d)]
    assert [(norm.momentum, norm.eps) for norm in norms] == [(0.1, 1e-5)] * 2
