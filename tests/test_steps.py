"""A method taken in three steps: what is computed once for several lists of labels and weights."""

import pytest
import torch

from configs import load_config
from model import METHODS, build_method, load_towers
from tests.conftest import ROOT

NAMES = ("cat", "red cup", "dog", "old car")
SETTINGS = {
    "mkt": ["MODEL.MKT.BLOCKS", "1"], "zero-shot": ["MODEL.ZERO_SHOT.SCORE", "both"],
    "tagclip": ["MODEL.TAGCLIP.TEMPLATES", "one"],
}  # fmt: skip


@pytest.fixture(scope="module", params=METHODS)
def method(request):
    cfg = load_config(ROOT / "configs" / "tiny.yml", ["MODEL.METHOD", request.param, *SETTINGS.get(request.param, [])])
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


def leaves(found):
    """Tensors of a tuple, or the tensor; each has a row for every image."""
    tensors = [found] if isinstance(found, torch.Tensor) else [part for part in found if isinstance(part, torch.Tensor)]
    assert all(len(tensor) == 3 for tensor in tensors)
    return tensors
