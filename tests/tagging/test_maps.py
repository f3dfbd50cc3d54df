"""What RAM sees where: each view against another way to it."""

import pytest
import torch
import torch.nn.functional as F

from model import ModelError
from model.build import MATCHERS
from model.matchers import Average
from tagging import Tagger
from tagging.maps import FEATURES, PLANS, views

NAMES = ("cat", "dog", "kite")


@pytest.fixture
def ram(finished):
    return Tagger.load(finished.run).method


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def found(ram, images):
    return views(ram, images, ram.encode_labels(NAMES))


def cosines(regions, labels):
    return F.cosine_similarity(regions[:, :, None], labels[None, None], dim=-1)


def test_raw_features_are_the_patches_that_open_clip_gives(ram, images, found):
    visual = ram.trunk.visual
    visual.output_tokens = True
    with torch.no_grad():
        patches = visual(images)[1] @ visual.proj
    expected = cosines(patches, ram.encode_labels(NAMES).frozen)
    torch.testing.assert_close(found.similarity["CLIP"], expected, atol=1e-5, rtol=0)


def test_attention_is_that_of_the_cls_token_in_the_last_block_of_open_clip(ram, images, found):
    block, seen = ram.trunk.visual.transformer.resblocks[-1], []
    handle = block.ln_1.register_forward_hook(lambda *of: seen.append(of[-1]))
    with torch.no_grad():
        ram.trunk.visual(images)
        x = seen[0]
        weights = block.attn.train()(x, x, x, need_weights=True)[1]  # in training mode it takes no fast path
    handle.remove()
    torch.testing.assert_close(found.attention, weights[:, 0, 1:], atol=1e-6, rtol=0)


def test_saa_of_all_blocks_is_what_the_teacher_sees(ram, images):
    ram.trunk.saa_blocks = frozenset(range(len(ram.trunk.blocks)))
    ram.trunk.ladder_factor, ram.trunk.ladder_start = 1.0, 0
    labels = ram.encode_labels(NAMES)
    with torch.no_grad():
        teacher = ram.trunk.teacher_regions(ram.trunk.stem(images, teacher=True))
    expected = cosines(teacher, labels.frozen)
    torch.testing.assert_close(views(ram, images, labels).similarity["SAA"], expected, atol=1e-5, rtol=0)


def test_the_last_features_their_plan_and_mu_are_those_of_the_method(ram, images, found):
    with torch.no_grad():
        output = ram(images, ram.encode_labels(NAMES))
    assert torch.equal(found.similarity["SAA + TSS"], output.similarity)
    assert torch.equal(found.plans["KCOT"], 3 * output.matching.plan)
    assert torch.equal(found.mu, output.matching.mu)
    assert found.grid == output.grid == (4, 4)


def test_affinities_compare_the_labels_in_each_region(ram, found):
    for name in FEATURES:
        expected = (ram.matcher.scale * found.similarity[name].double()).softmax(-1)
        torch.testing.assert_close(found.affinity[name].double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_says_how_each_label_is_shared_among_the_regions(found, name):
    plan = found.plans[name]
    assert plan.shape == (2, 16, 3)
    torch.testing.assert_close(plan.sum(1), torch.ones(2, 3), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "matcher"), [("average", "average"), ("re-weighting", "reweight"), ("OT", "ot"), ("KCOT", "ot+lpd")]
)
def test_plans_are_those_of_the_matchers_that_the_configuration_names(ram, found, finished, name, matcher):
    build = MATCHERS[matcher](finished.config(), ram.matcher.scale)
    expected = 3 * build(found.similarity["SAA + TSS"]).plan
    torch.testing.assert_close(found.plans[name], expected)


def test_a_method_without_region_weights_is_refused_in_one_line(ram, images):
    ram.matcher = Average()
    with pytest.raises(ModelError, match=r"MODEL\.MATCHER kcot or ot\+lpd"):
        views(ram, images, ram.encode_labels(NAMES))
