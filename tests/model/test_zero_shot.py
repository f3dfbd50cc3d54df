"""Zero-shot CLIP against open_clip, fed in the way it was trained."""

import pytest
import torch
import torch.nn.functional as F

from clip.image import ImageTrunk
from clip.text import TextEncoder
from model.zero_shot import TITLES, ZeroShotCLIP, soft_maximum

NAMES = ("dog", "traffic light", "car")
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def zero_shot(towers, input_norm=HALF, clip_norm=CLIP, **settings):
    trunk = ImageTrunk(towers.visual, adapted=(1, 2), saa_blocks=(0, 1, 2), ladder_factor=1.0, ladder_start=0,
                       positions="bicubic")  # fmt: skip
    text = TextEncoder(towers.text, towers.tokenize, template="A photo of a {}.", prompted=(1, 2))
    return ZeroShotCLIP(trunk, text, scale=towers.logit_scale, input_norm=input_norm, clip_norm=clip_norm,
                        **settings)  # fmt: skip


def pixels():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def normalised(images, norm):
    mean, std = (torch.tensor(values)[None, :, None, None] for values in norm)
    return (images - mean) / std


def expected(towers, images, norm):
    image = F.normalize(towers.visual(normalised(images, norm)), dim=-1)
    text = F.normalize(towers.text(towers.tokenize([f"A photo of a {name}." for name in NAMES])), dim=-1)
    return (towers.logit_scale * image @ text.T).softmax(-1)


@pytest.mark.parametrize("input_norm", [HALF, CLIP, ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])
@pytest.mark.parametrize("clip_norm", [HALF, CLIP])
def test_scores_are_those_of_open_clip_on_images_normalised_its_way(towers, input_norm, clip_norm):
    method = zero_shot(towers, input_norm, clip_norm)
    found = method(normalised(pixels(), input_norm), method.encode_labels(NAMES))
    torch.testing.assert_close(found.scores, expected(towers, pixels(), clip_norm), rtol=1e-3, atol=1e-5)


def test_normalisation_matters_to_this_test(towers):
    assert not torch.allclose(expected(towers, pixels(), HALF), expected(towers, pixels(), CLIP), atol=1e-3)


@pytest.mark.parametrize("score", TITLES)
def test_in_steps_the_scores_are_the_same_to_the_bit(towers, score):
    method = zero_shot(towers, score=score)
    images, labels = normalised(pixels(), HALF), method.encode_labels(NAMES)
    in_steps = method.recognise(method.features(method.stem(images)), labels)
    assert torch.equal(in_steps.scores, method(images, labels).scores)


def test_rows_sum_to_one(towers):
    method = zero_shot(towers)
    torch.testing.assert_close(method(pixels(), method.encode_labels(NAMES)).scores.sum(1), torch.ones(2))


def test_labels_are_normalised_features(towers):
    torch.testing.assert_close(zero_shot(towers).encode_labels(NAMES).norm(dim=1), torch.ones(3))


def test_nothing_is_added_to_a_checkpoint(towers):
    assert {name.split(".")[0] for name in zero_shot(towers).state_dict()} == {"trunk", "text"}


def scored(towers, score):
    method = zero_shot(towers, score=score)
    return method, method(pixels(), method.encode_labels(NAMES)).scores


def test_local_scores_are_the_soft_maximum_of_the_scaled_cosines_of_the_regions(towers):
    method, found = scored(towers, "local")
    _, regions = method.trunk.dense_features(pixels() * method.gain + method.offset)
    z = towers.logit_scale * F.cosine_similarity(regions[:, :, None], method.encode_labels(NAMES), dim=-1).double()
    expected = torch.stack([sum(w * x for w, x in zip(z[i].softmax(0), z[i], strict=True)) for i in range(2)])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_both_is_the_mean_of_scaled_cosines_and_local_scores(towers):
    method, found = scored(towers, "both")
    features = method.trunk.global_features(pixels() * method.gain + method.offset)
    expected = towers.logit_scale * F.cosine_similarity(features[:, None], method.encode_labels(NAMES), dim=-1)
    torch.testing.assert_close(found, (expected + scored(towers, "local")[1]) / 2, rtol=1e-4, atol=1e-4)


def test_a_soft_maximum_lies_between_mean_and_maximum_and_meets_them():
    z = 5 * torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    found = soft_maximum(z)
    assert (found > z.mean(1)).all()
    assert (found < z.amax(1)).all()
    torch.testing.assert_close(soft_maximum(1000 * z), 1000 * z.amax(1))
    torch.testing.assert_close(soft_maximum(z[:, :1]), z[:, 0])


def test_each_score_has_a_title_of_its_own(towers):
    assert [zero_shot(towers, score=score).title for score in TITLES] == list(TITLES.values())
    assert len(set(TITLES.values())) == len(TITLES)


@pytest.mark.parametrize("score", TITLES)
def test_scores_are_computed_in_float32_behind_half_precision_towers(towers, score):
    method = zero_shot(towers, score=score)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method(pixels(), method.encode_labels(NAMES)).scores
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scored(towers, score)[1], rtol=0.05, atol=0.5)
