"""Features of a CLIP in training."""

import open_clip
import pytest
import torch

from tools.pretraining.towers import build, encode_images, encode_texts, texts_in_parts


@pytest.fixture(scope="module")
def model():
    return build("ViT-S-8-shapes", 0).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore:'pin_memory'")
def test_features_are_those_of_open_clip(model, images):
    tokens = open_clip.tokenize(["a red circle", "a photo of a blue star."])
    with torch.no_grad():
        torch.testing.assert_close(
            encode_images(model, images), model.encode_image(images, normalize=True), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            encode_texts(model, tokens), model.encode_text(tokens, normalize=True), rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize(("corner", "kept"), [((0, 0), [0, 1, 8, 9]), ((2, 5), [21, 22, 29, 30])])
def test_a_smaller_image_has_the_positions_of_its_place_among_the_models_patches(model, images, corner, kept):
    small, original = images[:, :, :16, :16], model.visual.positional_embedding
    grid = model.visual.positional_embedding[[0, *(place + 1 for place in kept)]]
    features = encode_images(model, small, corner)
    model.visual.positional_embedding = torch.nn.Parameter(grid)  # a model of 2 x 2 patches
    try:
        torch.testing.assert_close(encode_images(model, small), features)
    finally:
        model.visual.positional_embedding = original


@torch.no_grad()
def test_texts_in_parts_are_the_same_features_in_the_same_order(model):
    tokens = open_clip.tokenize(["a photo of a circle", "b", "a red heart", "c d", "an image with a blue star."])
    torch.testing.assert_close(texts_in_parts(model, tokens, 3), encode_texts(model, tokens), rtol=1e-4, atol=1e-5)
