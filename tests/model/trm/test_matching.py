"""Matching and class-specific prompts against numbers of the authors' earlier code, on a CLIP with a ResNet."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from clip.contexts import Context
from clip.load import load_clip
from clip.text import Bare, TextEncoder
from loss.summed_asl_loss import summed_asl_loss
from model.trm.losses import classification_loss
from model.trm.matching import matching

RELEASE = np.load(Path(__file__).parents[2] / "data" / "release_trm_parts.npz")
LIMIT = 1e-4
SIDES = ("positive", "negative")
PLACEHOLDERS = 16  # of the context, behind the start


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key):
    expected = released(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def clip():
    """The file's CLIP; what a ResNet has of positions, the file has not, and nothing here reads it."""
    ids = RELEASE["clip/token_embedding.ids"]
    clip = CLIP(
        16, {"image_size": 64, "layers": (1, 1, 1, 1), "width": 2, "head_width": 64, "patch_size": None},
        {"context_length": 77, "vocab_size": int(ids.max()) + 1, "width": 64, "heads": 1, "layers": 1}, quick_gelu=True,
    ).eval().requires_grad_(False)  # fmt: skip
    state = {key[5:]: released(key) for key in RELEASE if key.startswith("clip/") and "token_embedding." not in key}
    table = torch.zeros_like(clip.token_embedding.weight)
    table[torch.from_numpy(ids).long()] = released("clip/token_embedding.rows")
    missing, unexpected = clip.load_state_dict(state | {"token_embedding.weight": table}, strict=False)
    assert set(unexpected) == set()
    assert [name for name in missing if "num_batches_tracked" not in name] == [
        "logit_scale", "visual.attnpool.positional_embedding"
    ]  # fmt: skip
    return clip


class Named(TextEncoder):
    """Reads the tokens of the file for whatever names."""

    def bare(self, names):  # noqa: ARG002
        tokens = torch.from_numpy(RELEASE["tokens"]).long()
        tokens = torch.cat([tokens[:, :1], tokens[:, 1 + PLACEHOLDERS :]], 1)
        ends = tokens.argmax(-1)
        return Bare(tokens[:, : int(ends.max()) + 1], ends)


@pytest.fixture
def contexts():
    return {side: Context(released(f"param/context.{side}"), recompute=False) for side in SIDES}


@pytest.fixture
def texts(clip, contexts):
    text = Named(clip, load_clip("ViT-tiny-8", "random").tokenize, template="{}.", prompted=())
    return [contexts[side](text, [""] * 4) for side in SIDES]


def test_texts_behind_class_specific_contexts_are_those_of_the_authors_earlier_code(texts):
    for side, found in zip(SIDES, texts, strict=True):
        assert error(found, f"text.{side}") < LIMIT


def test_matching_of_a_pooled_feature_is_that_of_the_authors_earlier_code(clip, texts):
    pool, tokens = clip.visual.attnpool, released("layer4_map").flatten(2).transpose(1, 2)  # (B, N, 64)
    assert error(clip.visual.layer4(stem(clip.visual, released("image"))), "layer4_map") < LIMIT
    query = tokens.mean(1, keepdim=True)
    tokens = torch.cat([query, tokens], 1)
    q, k, v = pool.q_proj(query), pool.k_proj(tokens), pool.v_proj(tokens)
    pooled = pool.c_proj((q @ k.transpose(1, 2) / 8).softmax(-1) @ v)  # one head of 64
    assert error(matching(pooled, *texts, released("param/temperature")), "logits.attention_pool") < LIMIT


def stem(visual, images):
    """A ResNet in front of its last stage."""
    return visual.layer3(visual.layer2(visual.layer1(visual.stem(images))))


def test_logits_loss_and_gradients_of_the_reweighted_baseline_are_those_of_the_authors_earlier_code(
    clip, contexts, texts
):
    pool, tokens = clip.visual.attnpool, released("layer4_map").flatten(2).transpose(1, 2)
    regions = F.normalize(pool.c_proj(pool.v_proj(tokens)), dim=-1)  # (B, N, D)
    assert error(regions, "region_features.normalised") < LIMIT
    scale, spatial = released("param/temperature").requires_grad_(), released("param/spatial_temperature")
    spatial.requires_grad_()
    weights = (spatial.exp() * regions @ F.normalize(texts[0], dim=-1).T).softmax(1)  # (B, N, C)
    # A sum of matchings of single regions, each of length 1, by their weights.
    each = torch.stack([matching(regions[:, [n]], *texts, scale) for n in range(regions.shape[1])], 1)
    logits = (weights * each).sum(1)
    targets = torch.from_numpy(np.select([RELEASE["target"] == 1, RELEASE["target"] == -1], [1, 0], -1))
    loss = classification_loss(logits, targets, summed_loss=lambda z, y: summed_asl_loss(
        z, y, gamma_neg=2.0, gamma_pos=1.0, clip=0.05, smallest=1e-8))  # fmt: skip
    loss.backward()
    found = {"logits.reweighted": logits, "loss": loss, "grad/temperature": scale.grad,
             "grad/spatial_temperature": spatial.grad}  # fmt: skip
    found |= {f"grad/context.{side}": contexts[side].vectors.grad for side in SIDES}
    for key, value in found.items():
        assert error(value, key) < LIMIT, key


def test_matching_is_a_difference_of_cosines_times_the_scale():
    generator = torch.Generator().manual_seed(0)
    features, positive, negative = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 8), (3, 8), (3, 8)))
    found = matching(7 * features, positive, 2 * negative, torch.tensor(1.5))
    for image in range(2):
        for label in range(3):
            f, g, h = (x.double().numpy() for x in (features[image, label], positive[label], negative[label]))
            cosines = [f @ t / np.linalg.norm(f) / np.linalg.norm(t) for t in (g, h)]
            assert found[image, label].item() == pytest.approx(np.exp(1.5) * (cosines[0] - cosines[1]), rel=1e-4)
