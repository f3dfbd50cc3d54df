"""DualCoOp: the numbers of its release, its regions of a ViT, and whole trainings."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clip.contexts import encode_behind
from clip.load import load_clip
from clip.text import Bare
from configs import load_config
from engine.checkpoint import load_checkpoint
from engine.state import load_state
from model import build_method
from model.compared.dual_coop import DualCoOp, LabelPair, Presence
from tagging.build import build as build_tagger
from tagging.portable import parts_of

ROOT = Path(__file__).parents[3]
RELEASE = np.load(ROOT / "tests" / "data" / "release_dualcoop.npz")
TINY = ["MODEL.METHOD", "dualcoop", "MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random",
        "SOLVER.GAMMA_NEG", "2", "SOLVER.GAMMA_POS", "1", "SOLVER.CLIP", "0.05"]  # fmt: skip
NAMES = ("dog", "traffic light", "person", "car", "kite")
TARGETS = torch.tensor([[1, 0, 1, -1, 0], [0, 1, 0, 0, -1]])
SIDES = ("positive", "negative")


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def build(towers, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(load_config(overrides=[*TINY, *overrides]), towers).eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("case", ["shared", "specific"])
def test_features_logits_scores_loss_and_gradients_are_those_of_the_release(
    towers, released_text, released_labels, case
):
    method, rows = build(towers), torch.from_numpy(RELEASE[f"{case}/in/labels"]).long()
    bare = released_text.bare(released_labels)
    bare = Bare(bare.tokens[rows], bare.ends[rows])
    contexts = {side: released(f"{case}/param/context.{side}").requires_grad_() for side in SIDES}
    texts = {
        side: encode_behind(released_text, bare, c[rows] if c.ndim == 3 else c) for side, c in contexts.items()
    }  # fmt: skip
    regions = released(f"{case}/in/regions").requires_grad_()
    for leaf in texts.values():
        leaf.retain_grad()
    positive, negative = method.logits(regions, LabelPair(*texts.values()))
    output = Presence((positive - negative).sigmoid(), positive, negative, None)
    (loss,) = method.losses(output, torch.from_numpy(RELEASE[f"{case}/in/targets"])).values()
    loss.backward()
    found = {"out/logits.positive": positive, "out/logits.negative": negative, "out/score": output.scores,
             "out/loss": loss, "grad/regions": regions.grad}  # fmt: skip
    for side in SIDES:
        found[f"out/text_features.{side}"], found[f"grad/text_features.{side}"] = texts[side], texts[side].grad
        found[f"grad/context.{side}"] = contexts[side].grad
    assert {key for key in RELEASE if key.startswith((f"{case}/out", f"{case}/grad"))} == {f"{case}/{k}" for k in found}
    for key, value in found.items():
        expected = released(f"{case}/{key}")
        assert (value.detach() - expected).norm() < 5e-5 * expected.norm(), key


def test_regions_are_clips_last_block_where_patches_see_themselves_alone_and_its_global_feature(towers):
    visual, method = towers.visual, build(towers)
    *earlier, last = visual.transformer.resblocks
    x, _ = method.trunk.embed(images())
    for block in earlier:
        x = block(x)
    alone = torch.full((17, 17), float("-inf")).fill_diagonal_(0)
    patches = visual.ln_post(last(x, attn_mask=alone)[:, 1:]) @ visual.proj
    expected = torch.cat([visual(images())[:, None], patches], 1)
    torch.testing.assert_close(method.stem(images()), expected, rtol=1e-4, atol=1e-5)


def test_regions_of_a_resnet_are_the_pools_projections_of_every_position_the_mean_first():
    visual = load_clip("RN-tiny", "random", seed=1).visual
    method = build(load_clip("RN-tiny", "random", seed=1), "MODEL.POSITIONS", "bicubic")
    batch, pool = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2)), visual.attnpool
    stage = visual.forward_intermediates(batch, indices=[4], intermediates_only=True)["image_intermediates"][0]
    x = stage.flatten(2)  # (2, W, 6)
    x = torch.cat([x.mean(2, keepdim=True), x], 2)
    first, others = pool.positional_embedding[0], pool.positional_embedding[1:].T.unflatten(1, (2, 2))[None]
    others = F.interpolate(others, (3, 2), mode="bicubic", align_corners=False).flatten(2)[0]
    x = (x + torch.cat([first[:, None], others], 1)).transpose(1, 2)
    torch.testing.assert_close(method.stem(batch), pool.c_proj(pool.v_proj(x)), rtol=1e-4, atol=1e-5)


def test_a_score_is_the_softmax_over_the_pair_of_what_regions_say(towers):
    method = build(towers, "MODEL.DUALCOOP.SHARPNESS", "7", "MODEL.DUALCOOP.SCALE", "3")
    labels = method.encode_labels(NAMES)
    regions = method.stem(images())
    z = [7 * F.cosine_similarity(regions[:, :, None], text, dim=-1) for text in labels[:2]]  # (2, 17, 5)
    weights = z[0].exp() / z[0].exp().sum(1, keepdim=True)
    pooled = torch.stack([3 * (weights * part).sum(1) for part in z])
    found = method(images(), labels)
    torch.testing.assert_close(torch.stack([found.positive, found.negative]), pooled, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.scores, pooled.softmax(0)[0], rtol=1e-4, atol=1e-4)


def test_gradients_flow_through_the_weights_of_the_regions(towers):
    method = build(towers)
    texts = [torch.randn(5, 32, generator=torch.Generator().manual_seed(k)).requires_grad_() for k in range(2)]
    _, negative = method.logits(method.stem(images()), LabelPair(*texts))
    negative.sum().backward()
    assert texts[0].grad.abs().sum() > 0  # the positive texts act on negative logits by the weights alone


def test_a_label_is_scored_the_same_whichever_others_are_asked_for(towers):
    method = build(towers)
    few, all_ = (method(images(), method.encode_labels(names)).scores for names in (NAMES[:2], NAMES))
    torch.testing.assert_close(few, all_[:, :2], rtol=1e-4, atol=1e-5)


def test_labels_that_are_not_known_count_for_nothing(towers):
    method = build(towers, "MODEL.LOSS_WEIGHT", "0.5")
    assert method.takes_unknown
    output = method(images(), method.encode_labels(NAMES), TARGETS)
    (loss,) = method.losses(output, TARGETS).values()
    terms = []
    for p, y in zip(output.scores.flatten().tolist(), TARGETS.flatten().tolist(), strict=True):
        shifted = max(p - 0.05, 0)
        terms += [] if y < 0 else [(1 - p) * np.log(p)] if y else [shifted**2 * np.log(1 - shifted)]
    assert loss.item() == pytest.approx(-0.5 * sum(terms), rel=1e-4)


def test_a_training_step_has_some_of_the_labels_drawn_at_random(towers):
    method = build(towers, "MODEL.DUALCOOP.LABELS_PER_STEP", "2")
    whole = method.encode_labels(NAMES)
    assert whole.columns is None
    method.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        drawn = [method.encode_labels(NAMES) for _ in range(20)]
    for labels in drawn:
        assert len(set(labels.columns.tolist())) == 2
        torch.testing.assert_close(labels.positive, whole.positive[labels.columns], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(labels.negative, whole.negative[labels.columns], rtol=1e-4, atol=1e-5)
    assert {column for labels in drawn for column in labels.columns.tolist()} == set(range(5))
    output = method(images(), drawn[0], TARGETS)
    (loss,) = method.losses(output, TARGETS).values()
    expected = method.loss(output.positive - output.negative, TARGETS[:, drawn[0].columns])
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("count", [0, 5, 9])
def test_labels_are_all_there_where_no_fewer_are_asked_for(towers, count):
    method = build(towers, "MODEL.DUALCOOP.LABELS_PER_STEP", str(count)).train()
    assert method.encode_labels(NAMES).columns is None


def test_steps_lower_the_loss_and_move_nothing_but_both_contexts(towers):
    method = build(towers, "MODEL.LOSS_WEIGHT", "0.01").train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    (group,) = method.groups()
    optimizer, losses = torch.optim.SGD(group.parameters, lr=1e-4), []
    for _ in range(5):
        (loss,) = method.losses(method(images(), method.encode_labels(NAMES)), TARGETS).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = [name for name, value in method.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["positive.vectors", "negative.vectors"]


def test_only_the_positive_context_starts_as_words(towers):
    method = build(towers, "MODEL.CONTEXT.WORDS", "a photo of a", "MODEL.CONTEXT.COUNT", "7")
    assert (len(method.positive.vectors), len(method.negative.vectors)) == (4, 7)


def test_a_resumed_training_draws_the_labels_of_the_one_it_goes_on_with(benchmark, train_script, test_script):
    keys = ("MODEL.METHOD", "dualcoop", "MODEL.DUALCOOP.LABELS_PER_STEP", "2", "MODEL.LOSS_WEIGHT", "0.01")
    straight, broken = (str(benchmark.runs / name) for name in ("straight", "broken"))
    train_script.train(benchmark.config(*keys, "OUTPUT_DIR", straight), None)
    train_script.train(benchmark.config(*keys, "OUTPUT_DIR", broken, "SOLVER.MAX_EPOCHS", "1"), None)
    train_script.train(benchmark.config(*keys, "OUTPUT_DIR", broken), "auto")
    runs = [next(Path(folder).iterdir()) for folder in (straight, broken)]
    expected, found = (load_checkpoint(run / "checkpoint.pth") for run in runs)
    assert set(found["model"]) == {"positive.vectors", "negative.vectors"}
    for part in ("model", "ema"):
        assert all(torch.equal(found[part][name], value) for name, value in expected[part].items())
    begun = load_state(runs[1] / "checkpoint.pth")
    assert not torch.equal(begun.model["negative.vectors"], begun.ema["negative.vectors"])
    test_script.test(benchmark.config(*keys, "OUTPUT_DIR", broken))
    (results,) = (runs[1] / "test").iterdir()
    rows = (results / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rows[1::2]] == ["zero-shot CLIP", "DualCoOp", "DualCoOp (EMA)"]


def test_it_is_trained_tested_and_asked_on_a_resnet(benchmark, train_script, test_script):
    cfg = benchmark.config(
        "MODEL.METHOD", "dualcoop", "MODEL.BACKBONE", "RN-tiny", "MODEL.LOSS_WEIGHT", "0.01", "INPUT.SIZE_TRAIN",
        "(64, 96)", "INPUT.SIZE_TEST", "(64, 64)", "SOLVER.EVAL_PERIOD", "2",
    )  # fmt: skip
    with pytest.warns(UserWarning, match="interpolated from 2 x 2 to 2 x 3 regions"):
        train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    state = load_state(run / "checkpoint.pth")
    assert set(state.model) == {"positive.vectors", "negative.vectors"}
    assert state.clip == load_clip("RN-tiny", "random", seed=cfg.SOLVER.SEED).identity
    with pytest.warns(UserWarning, match="interpolated"):
        test_script.test(cfg)
    (results,) = (run / "test").iterdir()
    rows = (results / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rows[1::2]] == ["zero-shot CLIP", "DualCoOp", "DualCoOp (EMA)"]
    with pytest.warns(UserWarning, match="interpolated"):
        method = build_tagger(parts_of(state)).method
    assert method(torch.zeros(1, 3, 64, 64), method.encode_labels(["red kite"])).scores.shape == (1, 1)


def test_its_configuration_is_that_of_its_release(towers):
    cfg = load_config([ROOT / "configs" / name for name in ("tiny.yml", "methods/dualcoop.yml")])
    method = build_method(cfg, towers)
    assert isinstance(method, DualCoOp)
    assert (len(method.positive.vectors), len(method.negative.vectors)) == (64, 64)
    assert (method.sharpness, method.scale, method.labels_per_step, method.loss_weight) == (20.0, 5.0, 0, 0.01)
    assert method.loss.keywords == {"gamma_neg": 2.0, "gamma_pos": 1.0, "clip": 0.05, "smallest": 1e-6}
    assert method.groups()[0][2:] == ("sgd", 0.002, 5e-4, 0.9)
