"""What both kinds of image tower promise alike."""

import pytest
import torch

from clip.image import ImageTrunk
from clip.load import load_clip
from clip.regions import region_size
from clip.resnet import ResNetTrunk

ROWS, COLUMNS = 3, 2


@pytest.fixture(scope="module", params=["ViT-tiny-8", "RN-tiny"])
def trunk(request):
    visual = load_clip(request.param, "random", seed=1).visual
    if request.param == "RN-tiny":
        return ResNetTrunk(visual, positions="bicubic")
    return ImageTrunk(visual, adapted=(), saa_blocks=(), ladder_factor=1.0, ladder_start=0, positions="bicubic")


@pytest.fixture(scope="module")
def images(trunk):
    height, width = region_size(trunk.visual)
    return torch.randn(2, 3, ROWS * height, COLUMNS * width, generator=torch.Generator().manual_seed(2))


def test_there_is_a_feature_for_each_region_and_each_image(trunk, images):
    features, regions = trunk.dense_features(images)
    assert (features.shape, regions.shape) == ((2, 32), (2, ROWS * COLUMNS, 32))
    assert trunk.regions_with_mean(images).shape == (2, 1 + ROWS * COLUMNS, 32)
    assert trunk.feature_map(images).map.shape == (2, trunk.width, ROWS, COLUMNS)


def test_the_image_has_the_same_feature_however_it_is_asked_for(trunk, images):
    expected = trunk.global_features(images)
    for found in (trunk.dense_features(images), trunk.feature_map(images)):
        torch.testing.assert_close(found.image, expected, rtol=1e-5, atol=1e-6)


def test_regions_are_the_same_behind_one_more(trunk, images):
    regions = trunk.dense_features(images).regions
    torch.testing.assert_close(trunk.regions_with_mean(images)[:, 1:], regions, rtol=1e-5, atol=1e-6)


def test_nothing_keeps_a_graph(trunk, images):
    asked = images.clone().requires_grad_()
    found = [trunk.global_features(asked), *trunk.dense_features(asked), *trunk.feature_map(asked)]
    found.append(trunk.regions_with_mean(asked))
    assert not any(part.requires_grad for part in found)


def test_images_do_not_change_each_other(trunk, images):
    together, alone = trunk.dense_features(images), trunk.dense_features(images[:1])
    torch.testing.assert_close(together.regions[:1], alone.regions, rtol=1e-4, atol=1e-5)
