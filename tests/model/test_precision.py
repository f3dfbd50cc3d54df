"""Half precision of what is frozen: what is stored so, and that little changes."""

import copy
from pathlib import Path

import pytest
import torch

from clip.load import load_clip
from configs import load_config
from model import build_method, build_zero_shot
from model.precision import store_in, stored_in

NAMES = ("dog", "traffic light", "person")
TARGETS = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
BF16 = torch.bfloat16
# The projections of attention and of the MLP in each of the three blocks, and the patch embedding without bias.
MATRICES = {"conv1.weight"} | {
    f"transformer.resblocks.{block}.{name}"
    for block in range(3)
    for name in (
        "attn.in_proj_weight", "attn.in_proj_bias", "attn.out_proj.weight", "attn.out_proj.bias",
        "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias",
    )
}  # fmt: skip


@pytest.fixture
def own_towers():
    return load_clip("ViT-tiny-8", "random", seed=1)  # may be changed


@pytest.fixture
def build(own_towers):
    def make(*paths):
        quick = ["MODEL.COMC.SENTENCES", "8", "MODEL.TAGCLIP.TEMPLATES", "one"]
        cfg = load_config(["configs/tiny.yml", *paths], quick)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_method(cfg, own_towers, seen=len(NAMES), labels=NAMES).eval()

    return make


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def scores(method, dtype=None):
    with torch.no_grad():
        labels = method.encode_labels(NAMES)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            return method(images(), labels).scores


def step(method, dtype=None):
    """The gradients of a training step."""
    method.train()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        output = method(images(), method.encode_labels(NAMES), TARGETS)
    torch.stack(list(method.losses(output, TARGETS).values())).sum().backward()
    return torch.cat([p.grad.flatten() for group in method.groups() for p in group.parameters])


def contents(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(left, right):
    assert left.keys() == right.keys()
    return all(left[k].dtype == right[k].dtype and torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("dtype", [BF16, torch.float16])
def test_the_matrices_of_the_image_tower_are_stored_and_nothing_else_is(build, dtype):
    method = build()
    before = contents(method)
    store_in(dtype, method)
    for name, tensor in method.state_dict().items():
        if name.removeprefix("trunk.visual.") in MATRICES:
            assert torch.equal(tensor, before[name].to(dtype)), name
            assert tensor.dtype == dtype, name
        else:
            assert torch.equal(tensor, before[name]), name
            assert tensor.dtype == before[name].dtype, name
    assert {f"trunk.visual.{name}" for name in MATRICES} <= before.keys()


def test_what_is_trained_is_the_same_in_a_checkpoint(build):
    method = build()
    before = contents(method)
    with stored_in(BF16, method):
        assert same({k: before[k] for k in method.trained_state()}, method.trained_state())


def test_all_comes_back_to_the_bit_after_an_error_too(build):
    method = build()
    before = contents(method)
    with pytest.raises(KeyboardInterrupt), stored_in(BF16, method):
        raise KeyboardInterrupt
    assert same(before, contents(method))


def test_without_mixed_precision_no_bit_changes(build):
    method = build()
    before, expected = contents(method), scores(method)
    store_in(None, method)
    with stored_in(None, method):
        assert same(before, contents(method))
        assert torch.equal(scores(method), expected)


def test_weights_of_half_precision_such_as_openais_lose_nothing_in_fp16(build):
    method = build()
    for parameter in method.trunk.parameters():
        parameter.data = parameter.data.half().float()
    before = contents(method)
    store_in(torch.float16, method)
    assert all(torch.equal(tensor.float(), before[name].float()) for name, tensor in method.state_dict().items())


def test_methods_that_share_towers_are_stored_once_and_both_score(build, own_towers):
    method, zero_shot = build(), build_zero_shot(load_config("configs/tiny.yml"), own_towers)
    expected = scores(zero_shot), scores(method)
    with stored_in(BF16, zero_shot, method):
        assert method.trunk.visual.conv1.weight.dtype == BF16
        found = scores(zero_shot, BF16), scores(method, BF16)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0.1, atol=0.05)
    assert torch.equal(scores(method), expected[1])


def test_a_method_that_computes_in_float32_keeps_its_tower_and_that_of_others_beside_it(build):
    method, exact = build(), build("configs/methods/tagclip.yml")
    store_in(BF16, method, exact)
    assert {p.dtype for p in method.parameters()} == {torch.float32}


def test_a_block_that_is_trained_stays_float32(build):
    method = build()
    last = method.trunk.blocks[-1].requires_grad_(True)
    store_in(BF16, method)
    assert {p.dtype for p in last.parameters()} == {torch.float32}
    assert method.trunk.blocks[0].mlp.c_fc.weight.dtype == BF16


def test_what_is_computed_is_what_autocast_alone_makes_of_float32_weights(build):
    method = build()
    expected = scores(method, BF16)
    store_in(BF16, method)
    assert torch.equal(scores(method, BF16), expected)


@pytest.mark.parametrize("path", sorted(Path("configs/methods").glob("*.yml")), ids=lambda path: path.stem)
def test_every_method_scores_in_bf16_near_float32(build, path):
    method = build(path)
    expected = scores(method)
    store_in(BF16, method)
    found = scores(method, BF16)
    assert found.dtype == torch.float32
    near = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert near > 0.99


def test_a_training_step_in_bf16_has_the_gradients_of_float32_nearly(build):
    method = build()
    expected = step(copy.deepcopy(method))
    store_in(BF16, method)
    found = step(method, BF16)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.98


def test_logits_and_labels_are_float32(build):
    method = build()
    store_in(BF16, method)
    labels = method.encode_labels(NAMES)
    with torch.autocast("cpu", dtype=BF16):
        found = method(images(), labels, TARGETS)
    of_labels = [labels.features, labels.frozen]
    numbers = [found.scores, found.local_logits, found.global_logits, found.similarity, found.matching.plan]
    assert {t.dtype for t in (*of_labels, *numbers, found.assignment)} == {torch.float32}
