"""What images say of labels one by one."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from model import ModelError, build_method, load_towers
from model.kcot import label_presence
from model.matchers import matching_cost
from model.ot_solver import sinkhorn
from tagging.evidence import CLOSEST, MARGINS, NAMES, RegionEvidence, joined

SEEN = ("cat", "cup", "dog", "tree", "traffic light", "sofa")
OTHERS = ("a rather long name of a thing", "sun", "kite")


@pytest.fixture(scope="module")
def evidence(ram):
    return RegionEvidence(ram, SEEN)


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def gallery(evidence, images):
    return evidence.gallery(images)


def test_for_the_seen_labels_the_weights_are_the_columns_of_rams_own_plan(ram, evidence, images, gallery):
    own = ram(images, ram.encode_labels(SEEN))
    found = evidence.ask(gallery, evidence.labels(SEEN))
    expected = own.matching.plan / own.matching.plan.sum(1, keepdim=True)
    near = {"rtol": 5e-3, "atol": 1e-5, "check_dtype": False}  # RAM stops before the fixed point
    torch.testing.assert_close(found.weights, expected, **near)
    torch.testing.assert_close(found.numbers[..., 0], own.local_logits, **near)
    torch.testing.assert_close(found.numbers[..., 1], own.global_logits, **near)


@pytest.mark.parametrize("names", [("dog",), ("kite", "dog"), ("dog", *OTHERS), (*reversed(SEEN), "sun")])
def test_a_label_is_judged_the_same_whichever_others_are_asked_for(evidence, gallery, names):
    whole = SEEN + OTHERS
    expected = evidence.ask(gallery, evidence.labels(whole)).numbers[:, [whole.index(name) for name in names]]
    found = evidence.ask(gallery, evidence.labels(names)).numbers
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_is_judged_the_same_in_any_batch(evidence, images, gallery):
    asked = evidence.labels(SEEN + OTHERS)
    alone = joined([evidence.gallery(images[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(
        evidence.ask(alone, asked).numbers, evidence.ask(gallery, asked).numbers, rtol=1e-4, atol=1e-4
    )


def plain(ram, gallery, text, anchors, place):
    """The numbers of one image and one label, by the formulas, in float64; `place`: which anchor it is, or None."""
    scale, reg, tau_local, tau_global = (float(x) for x in (
        ram.matcher.scale, ram.matcher.reg, ram.local_temperature, ram.global_temperature))  # fmt: skip
    regions, cls = gallery.regions[0].double().numpy(), gallery.cls[0].double().numpy()
    s_anchor, s = regions @ anchors.T, regions @ text  # (N, S), (N,)
    denominator = logsumexp(scale * s_anchor, axis=1)
    if place is None:
        denominator = np.logaddexp(denominator, scale * s)
    log_p = scale * s - denominator
    p = np.exp(log_p)

    solve = partial(sinkhorn, max_iter=200, tol=None)
    mu = label_presence(torch.from_numpy(s_anchor)[None], ram.matcher.presence_temperature)
    cost = matching_cost(torch.from_numpy(s_anchor)[None], scale)
    solved = solve(cost, mu, torch.full((1, len(anchors)), 1 / len(anchors)), reg=reg)
    plan, cost, mu = (t[0].numpy() for t in (solved.plan, cost, mu))
    log_a = (np.log(plan) + cost / reg)[:, 0]  # any column, up to a constant
    w = np.exp(log_a - (1 - p) / reg)
    w /= w.sum()
    local = (w * s).sum() / (len(anchors) * tau_local)
    local_anchors, global_anchors = (plan * s_anchor).sum(0) / tau_local, anchors @ cls / tau_global
    glob = text @ cls / tau_global

    def top(values, count):
        return np.sort(values)[::-1][:count]

    def logit(log_probability):
        return np.clip(log_probability - np.log(-np.expm1(log_probability)), -16, 16)

    rivals = np.delete(s_anchor, [] if place is None else [place], axis=1).max(1)
    mean_p = top(p, 4).mean()
    return np.array([
        local, glob, logsumexp(local_anchors), logsumexp(global_anchors), top(s, 4).mean(), logit(top(log_p, 1))[0],
        np.log(mean_p / (1 - mean_p)), *top(s, CLOSEST), *logit(top(log_p, CLOSEST)), *top(s - rivals, MARGINS),
        *(logsumexp(k * s) / k for k in (10, 30, 100)), np.log(p.sum()), np.log((p * mu).sum()),
        (local - local_anchors.mean()) / local_anchors.std(), (glob - global_anchors.mean()) / global_anchors.std(),
    ])  # fmt: skip


@pytest.mark.parametrize("name", [*SEEN[:3], *OTHERS])
def test_the_numbers_are_those_of_the_formulas(ram, evidence, images, name):
    gallery = evidence.gallery(images[1:2])
    asked = evidence.labels([name])
    place = SEEN.index(name) if name in SEEN else None
    text = torch.nn.functional.normalize(ram.encode_labels(SEEN).features.double(), dim=-1).numpy()
    expected = plain(ram, gallery, asked.text[0].double().numpy(), text, place)
    found = evidence.ask(gallery, asked).numbers[0, 0].numpy()
    assert len(found) == len(NAMES) == 34
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_probability_at_a_region_counts_a_new_label_among_the_anchors_and_a_seen_one_once(ram, evidence, gallery):
    asked = evidence.labels(["dog", "sun"])
    seen_text = evidence.labels(SEEN).text
    s = gallery.regions.double() @ seen_text.T
    softmax = (ram.matcher.scale * s).softmax(-1)[..., SEEN.index("dog")].amax(1)
    best = evidence.ask(gallery, asked).numbers[:, 0, NAMES.index("logit of the largest p")].double()
    np.testing.assert_allclose(expit(best.numpy()), softmax.numpy(), rtol=1e-3)


def test_fewer_regions_than_are_looked_at_one_by_one_are_enough(evidence, gallery):
    few = evidence.situated(gallery.regions[:, :3], gallery.cls, (1, 3))
    numbers = evidence.ask(few, evidence.labels(("dog", "sun"))).numbers
    assert numbers.shape == (3, 2, 34)
    assert numbers.isfinite().all()


def test_a_single_seen_label_is_enough(ram, images):
    evidence = RegionEvidence(ram, ("cat",))
    numbers = evidence.ask(evidence.gallery(images), evidence.labels(("cat", "sun"))).numbers
    assert numbers.isfinite().all()


def test_features_that_were_stored_give_the_same_gallery(evidence, gallery):
    again = evidence.situated(gallery.regions, gallery.cls, gallery.grid)
    for name, before, after in zip(gallery._fields, gallery, again, strict=True):
        if name != "grid":
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_labels_behind_a_learned_context_are_judged_one_by_one_too(config, images):
    cfg = config("MODEL.LABEL_PROMPTING", "coop")
    ram = build_method(cfg, load_towers(cfg), seen=6).eval().requires_grad_(False)
    evidence = RegionEvidence(ram, SEEN)
    gallery = evidence.gallery(images)
    own = ram(images, ram.encode_labels(SEEN))
    found = evidence.ask(gallery, evidence.labels(SEEN)).numbers
    near = {"rtol": 5e-3, "atol": 1e-5, "check_dtype": False}  # RAM stops before the fixed point
    torch.testing.assert_close(found[..., 0], own.local_logits, **near)
    torch.testing.assert_close(found[..., 1], own.global_logits, **near)
    assert evidence.labels(["traffic_light", "A photo of a dog."]).anchor.tolist() == [SEEN.index("traffic light"), -1]


def test_labels_with_negative_texts_are_refused(config):
    cfg = config("MODEL.LABEL_PROMPTING", "dualcoop")
    ram = build_method(cfg, load_towers(cfg), seen=6).eval()
    with pytest.raises(ModelError, match=r"know no negative texts: MODEL\.LABEL_PROMPTING deep or coop has none"):
        RegionEvidence(ram, SEEN)


def test_a_matcher_without_a_cost_is_refused(config):
    cfg = config("MODEL.MATCHER", "average")
    ram = build_method(cfg, load_towers(cfg), seen=6).eval()
    with pytest.raises(ModelError, match=r"need a matcher with a cost: MODEL\.MATCHER kcot, ot"):
        RegionEvidence(ram, SEEN)
