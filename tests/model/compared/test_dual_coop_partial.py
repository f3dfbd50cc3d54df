"""The modified DualCoOp: numbers of its authors' code, its pooling by hand, and a whole training."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from clip.contexts import Context
from clip.load import ClipTowers
from clip.text import Bare
from configs import load_config
from model import ModelError, build_method
from model.compared.dual_coop_partial import Pooled

RELEASE = np.load(Path(__file__).parents[2] / "data" / "release_trm_parts.npz")
TINY = ["MODEL.METHOD", "dualcoop-partial", "MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random",
        "SOLVER.GAMMA_NEG", "2", "SOLVER.GAMMA_POS", "1", "SOLVER.CLIP", "0.05", "MODEL.DUALCOOP.SHARPNESS", "20",
        "MODEL.DUALCOOP.SCALE", "50"]  # fmt: skip
NAMES = ("dog", "traffic light", "person", "car", "kite")
TARGETS = torch.tensor([[1, 0, 1, -1, 0], [0, 1, 0, 0, -1]])
SIDES = ("positive", "negative")
PLACEHOLDERS = 16  # of a context in the file's tokens, behind the start


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def build(towers, *overrides, labels=NAMES, seen=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = load_config(overrides=[*TINY, "MODEL.CONTEXT.COUNT", "3", *overrides])
        return build_method(cfg, towers, seen=seen, labels=labels).eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def theirs(towers, monkeypatch):
    """The method with the text tower, contexts and factors of the file, on names of the file's tokens."""
    ids = RELEASE["clip/token_embedding.ids"]
    clip = CLIP(
        16, {"image_size": 8, "layers": 1, "width": 64, "head_width": 64, "patch_size": 8},
        {"context_length": 77, "vocab_size": int(ids.max()) + 1, "width": 64, "heads": 1, "layers": 1}, quick_gelu=True,
    ).eval().requires_grad_(False)  # fmt: skip
    table = torch.zeros_like(clip.token_embedding.weight)
    table[torch.from_numpy(ids).long()] = released("clip/token_embedding.rows")
    text = {key[5:]: released(key) for key in RELEASE if key.startswith("clip/")}
    text = {name: value for name, value in text.items() if not name.startswith(("visual.", "token_embedding."))}
    missing, unexpected = clip.load_state_dict(text | {"token_embedding.weight": table}, strict=False)
    assert not unexpected
    assert {name.partition(".")[0] for name in missing} == {"visual", "logit_scale"}
    towers = ClipTowers(**{**towers._asdict(), "text": clip})
    method = build(towers, labels=("a", "b", "c", "d"))
    tokens = torch.from_numpy(RELEASE["tokens"]).long()
    tokens = torch.cat([tokens[:, :1], tokens[:, 1 + PLACEHOLDERS :]], 1)
    ends = tokens.argmax(-1)
    monkeypatch.setattr(method.text, "bare", lambda _: Bare(tokens[:, : int(ends.max()) + 1], ends))
    for side in SIDES:
        setattr(method, side, Context(released(f"param/context.{side}"), recompute=False))
    method.log_scale.data, method.log_sharpness.data = (
        released(f"param/{name}") for name in ("temperature", "spatial_temperature")
    )
    return method


def test_texts_logits_loss_and_gradients_are_those_of_the_authors_code(theirs):
    labels = theirs.encode_labels(theirs.labels)
    logits = theirs.logits(released("region_features.normalised"), labels)
    targets = torch.from_numpy(np.select([RELEASE["target"] == 1, RELEASE["target"] == -1], [1, 0], -1))
    (loss,) = theirs.losses(Pooled(logits), targets).values()
    loss.backward()
    found = {"text.positive": labels.positive, "text.negative": labels.negative, "logits.reweighted": logits,
             "loss": loss, "grad/temperature": theirs.log_scale.grad,
             "grad/spatial_temperature": theirs.log_sharpness.grad}  # fmt: skip
    found |= {f"grad/context.{side}": getattr(theirs, side).vectors.grad for side in SIDES}
    assert {key for key in RELEASE if key.startswith("grad/")} <= found.keys()
    for key, value in found.items():
        expected = released(key)
        assert (value.detach() - expected).norm() < 1e-4 * expected.norm(), key


def test_regions_are_the_patches_without_the_image_feature(towers):
    method = build(towers)
    labels, patches = method.encode_labels(NAMES), method.trunk.dense_features(images())[1]
    assert patches.shape[1] == 16
    torch.testing.assert_close(method(images(), labels).scores, method.logits(patches, labels))


@pytest.mark.parametrize("pooling", ["reweight", "average"])
def test_logits_are_pooled_differences_of_cosines(towers, pooling):
    method = build(towers, "MODEL.DUALCOOP.POOLING", pooling)
    labels, patches = method.encode_labels(NAMES), method.trunk.dense_features(images())[1]
    positive, negative = (F.cosine_similarity(patches[:, :, None], text, dim=-1) for text in labels[:2])
    shares = (20 * positive).exp() if pooling == "reweight" else torch.ones_like(positive)
    expected = 50 * (shares * (positive - negative)).sum(1) / shares.sum(1)
    torch.testing.assert_close(method(images(), labels).scores, expected, rtol=1e-4, atol=1e-4)


def test_labels_that_are_not_known_count_for_nothing_and_the_loss_is_a_mean_over_images(towers):
    method = build(towers, "MODEL.LOSS_WEIGHT", "0.5")
    output = method(images(), method.encode_labels(NAMES))
    (loss,) = method.losses(output, TARGETS).values()
    terms = []
    for p, y in zip(output.scores.sigmoid().flatten().tolist(), TARGETS.flatten().tolist(), strict=True):
        shifted = max(p - 0.05, 0)
        terms += [] if y < 0 else [(1 - p) * np.log(p)] if y else [shifted**2 * np.log(1 - shifted)]
    assert method.takes_unknown
    assert loss.item() == pytest.approx(-0.5 * sum(terms) / 2, rel=1e-4)


@pytest.mark.parametrize(("pooling", "factors"), [("reweight", {"scale", "sharpness"}), ("average", {"scale"})])
def test_contexts_and_factors_are_all_that_is_trained(towers, pooling, factors):
    method = build(towers, "MODEL.DUALCOOP.POOLING", pooling).train()
    output = method(images(), method.encode_labels(NAMES))
    (loss,) = method.losses(output, TARGETS).values()
    loss.backward()
    (group,) = method.groups()
    trained = {"positive.vectors", "negative.vectors", *(f"log_{name}" for name in factors)}
    assert set(method.trained_state()) == trained | {"names"}
    assert len(group.parameters) == len(trained)
    assert all(parameter.grad.abs().sum() > 0 for parameter in group.parameters)
    assert {name: round(value.item()) for name, value in method.diagnostics(output).items()} == {
        name: {"scale": 50, "sharpness": 20}[name] for name in factors
    }


def test_each_label_has_contexts_of_its_own_and_may_be_asked_for_alone(towers):
    method = build(towers)
    assert method.positive.vectors.shape == (5, 3, 64)
    whole, some = (method(images(), method.encode_labels(names)).scores for names in (NAMES, ("car", "dog")))
    torch.testing.assert_close(some, whole[:, [3, 0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "seen", "said"),
    [((), 0, "no labels are known here"), (NAMES, 3, "2 of 5 labels are unseen, 'car' among them: take .* dualcoop,")],
)
def test_unseen_labels_are_refused_with_a_way_out(towers, labels, seen, said):
    with pytest.raises(ModelError, match=said):
        build(towers, labels=labels, seen=seen)


def test_its_configuration_is_the_recipe_of_the_paper(towers):
    root = Path(__file__).parents[3] / "configs"
    cfg = load_config([root / "tiny.yml", root / "methods" / "dualcoop-partial.yml"])
    method = build_method(cfg, towers, labels=NAMES)
    assert method.positive.vectors.shape == (5, 16, 64)
    assert (method.log_scale.item(), method.log_sharpness.item()) == pytest.approx((3.91, 3.0), abs=1e-3)
    assert method.loss.keywords == {"gamma_neg": 2.0, "gamma_pos": 1.0, "clip": 0.05, "smallest": 1e-8}
    assert method.groups()[0][2:5] == ("adamw", 5e-4, 5e-4)
