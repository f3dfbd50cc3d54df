"""A method taken in steps: what is computed once for several lists of labels and weights, or for a whole training."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from configs import load_config
from model import METHODS, build_method, load_towers
from model.compared.comc import CoMC
from model.compared.coop import CoOp
from model.model import RAM
from tests.conftest import ROOT

NAMES = ("cat", "red cup", "dog", "old car")
SETTINGS = {
    "mkt": ["MODEL.MKT.BLOCKS", "1"], "mkt, stage 2": ["MODEL.MKT.BLOCKS", "1", "MODEL.MKT.STAGE", "2"],
    "zero-shot": ["MODEL.ZERO_SHOT.SCORE", "both"],
    "comc": ["MODEL.COMC.SENTENCES", "20"], "tagclip": ["MODEL.TAGCLIP.TEMPLATES", "one"],
}  # fmt: skip


@pytest.fixture(scope="module", params=[*METHODS, "mkt, stage 2"])
def method(request):
    name, *_ = request.param.split(",")
    cfg = load_config(ROOT / "configs" / "tiny.yml", ["MODEL.METHOD", name, *SETTINGS.get(request.param, [])])
    torch.manual_seed(0)
    return build_method(cfg, load_towers(cfg), seen=len(NAMES), labels=NAMES).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_in_steps_scores_are_those_of_the_forward_pass_for_each_list_of_labels(method, images):
    features = method.features(method.stem(images))
    for names in (NAMES, NAMES[1:3]):
        labels = method.encode_labels(names)
        assert torch.equal(method.recognise(features, labels).scores, method(images, labels).scores)


@torch.no_grad()
def test_no_training_changes_the_stem(method, images):
    before = leaves(method.stem(images))
    for parameter in (parameter for group in method.groups() for parameter in group.parameters):
        parameter += 0.1
    after = leaves(method.stem(images))
    assert len(before) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_what_is_learned_from_the_stem_is_to_the_bit_what_is_learned_from_the_images(method, images):
    if not method.groups():
        pytest.skip("nothing is trained")
    targets = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, -1]])
    if not method.takes_unknown:
        targets = targets.clamp(min=0)
    results = []
    for learned in (
        lambda labels: method(images, labels, targets),
        lambda labels: method.learn(method.training_stem(images), labels, targets),
    ):
        before = {name: value.clone() for name, value in method.trained_state().items()}
        torch.manual_seed(2)  # of dropout
        method.train().zero_grad()
        losses = method.losses(learned(method.encode_labels(NAMES)), targets)
        torch.stack(list(losses.values())).sum().backward()
        gradients = [parameter.grad for group in method.groups() for parameter in group.parameters]
        results.append([*losses.values(), *(gradient for gradient in gradients if gradient is not None)])
        method.load_trained_state(before)
        method.eval()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_training_changes_the_stem_of_training(method, images):
    before = leaves(method.training_stem(images))
    method.train()
    assert all(torch.equal(a, b) for a, b in zip(before, leaves(method.training_stem(images)), strict=True))
    assert not any(leaf.requires_grad for leaf in before)
    method.eval()


def leaves(found):
    """All tensors; each has a row for every image."""
    tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
    assert all(len(tensor) == 3 for tensor in tensors)
    return tensors


def test_a_method_learns_from_the_stem_if_what_it_learns_is_defined_with_its_forward_pass_or_below():
    class OwnForward(CoOp):
        def forward(self, images, labels, targets=None):
            return super().forward(images, labels, targets)

    class OwnBoth(OwnForward):
        def learn(self, stem, labels, targets):
            return super().learn(stem, labels, targets)

    assert [kind.learns_from_stem() for kind in (CoOp, RAM, OwnForward, OwnBoth, CoMC)] == [
        True, True, False, True, False,
    ]  # fmt: skip
