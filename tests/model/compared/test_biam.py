"""BiAM's head against numbers of the official code, and the method on the frozen CLIP."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from configs import load_config
from engine.run import newest_run
from engine.state import load_state
from loss import normalised_ranking_loss
from model import METHODS, ModelError, build_method
from model.compared import biam
from model.compared.biam import BiAM, BiAMHead

RELEASE = np.load(Path(__file__).parents[2] / "data" / "release_biam.npz")
LIMIT = 1e-5  # of ||ours - theirs|| / ||theirs||
SEEN = ("cat", "cup", "dog", "tree")
BATCH_STATISTICS = ("hidden.bn.running_mean", "hidden.bn.running_var", "scene.residual_bn.running_mean",
                    "scene.residual_bn.running_var")  # fmt: skip


def tensor(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key):
    expected = tensor(key)
    return ((found.detach().reshape(expected.shape) - expected).norm() / expected.norm()).item()


def named(state):
    """The head's tensors under the file's names."""
    theirs = {"fuse.": "fuse.conv.", "scene.residual.": "scene.residual_"}
    for name, value in state.items():
        prefix = next((ours for ours in theirs if name.startswith(ours)), "")
        yield theirs.get(prefix, "") + name.removeprefix(prefix), value


@pytest.fixture
def head():
    channels, width, *_ = RELEASE["param/hidden.conv.weight"].shape
    made = BiAMHead(
        map_width=width, global_width=RELEASE["in/global_features"].shape[1],
        label_width=RELEASE["in/label_vectors"].shape[1], channels=channels, heads=int(RELEASE["in/heads"]), top_k=6,
    )  # fmt: skip
    with torch.no_grad():
        for name, value in named(made.state_dict()):
            if not name.endswith("num_batches_tracked"):
                value.copy_(tensor(f"param/{name}").reshape(value.shape))
    return made


def inputs():
    return tensor("in/region_features"), tensor("in/global_features"), tensor("in/label_vectors")


def targets():
    """1, 0 and -1 (not known) from the method's +1, -1 and 0."""
    signs = RELEASE["in/targets"]
    return torch.from_numpy(np.select([signs == 1, signs == -1], [1, 0], -1))


def test_scores_and_loss_are_those_of_the_official_code(head):
    logits = head.eval()(*inputs())
    assert error(logits, "out/eval.logits") < LIMIT
    assert error(normalised_ranking_loss(logits, targets()), "out/eval.loss") < LIMIT


def test_both_blocks_are_those_of_the_official_code(head):
    maps, vectors, _ = inputs()
    h = head.eval().hidden(maps)
    assert error(h[0], "out/eval.hidden") < LIMIT
    assert error(head.region(h)[0], "out/eval.region") < LIMIT
    assert error(head.scene(h, vectors)[0], "out/eval.scene") < LIMIT


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(biam, "DROPOUT", 0.0)
    monkeypatch.setattr(biam, "DROPOUT_GLOBAL", 0.0)


@pytest.mark.usefixtures("no_dropout")
def test_a_training_step_is_that_of_the_official_code(head):
    logits = head.train()(*inputs())
    logits.retain_grad()
    loss = normalised_ranking_loss(logits, targets())
    loss.backward()
    assert error(logits, "out/train.logits") < LIMIT
    assert error(loss, "out/train.loss") < LIMIT
    assert error(logits.grad, "grad/logits") < LIMIT
    gradients = {f"grad/{name}": p.grad for name, p in named(dict(head.named_parameters()))}
    compared = [key for key in RELEASE.files if key.startswith("grad/") and key != "grad/logits"]
    assert len(compared) == 13
    assert max(error(gradients[key], key) for key in compared) < LIMIT
    statistics = dict(named(head.state_dict()))
    assert max(error(statistics[name], f"out/train.{name}") for name in BATCH_STATISTICS) < LIMIT


@pytest.mark.usefixtures("no_dropout")
@pytest.mark.parametrize("constant", ["DROPOUT", "DROPOUT_GLOBAL"])
def test_both_dropouts_act_in_training(head, monkeypatch, constant):
    plain = head.train()(*inputs())
    monkeypatch.setattr(biam, constant, 0.5)
    assert not torch.allclose(head(*inputs()), plain)


def build(towers, *overrides):
    torch.manual_seed(0)
    small = ("MODEL.METHOD", "biam", "MODEL.BIAM.CHANNELS", "16", "MODEL.BIAM.HEADS", "2")
    return build_method(load_config("configs/tiny.yml", [*small, *overrides]), towers)


def pictures(count=3, height=32, width=32):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def step(model, targets, images=None):
    """Losses of one forward pass in training."""
    output = model.train()(pictures() if images is None else images, model.encode_labels(SEEN), targets)
    return output, model.losses(output, targets)


def test_the_head_sees_clips_patches_behind_the_last_layer_norm_its_global_feature_and_its_texts(towers):
    model, seen, visual = build(towers).eval(), {}, towers.visual
    model.head.register_forward_pre_hook(
        lambda _, given: seen.update(zip(("map", "cls", "labels"), given, strict=True))
    )
    model(pictures(), model.encode_labels(SEEN))
    visual.output_tokens = True  # open_clip's own patches behind its last LayerNorm
    try:
        cls, patches = visual(pictures())
    finally:
        visual.output_tokens = False
    text = F.normalize(towers.text(towers.tokenize([f"A photo of a {name}." for name in SEEN])), dim=-1)
    torch.testing.assert_close(seen["map"], patches.transpose(1, 2).reshape(3, 64, 4, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen["cls"], cls, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["labels"], text, rtol=1e-4, atol=1e-5)


def test_images_need_not_be_square(towers):
    model = build(towers).eval()
    assert model(pictures(height=32, width=48), model.encode_labels(SEEN)).scores.shape == (3, 4)


def test_images_without_a_present_label_take_no_part_in_a_training_step(towers, no_dropout):  # noqa: ARG001
    targets = torch.tensor([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 1, -1]])
    (output, losses), (without, expected) = (
        step(build(towers), targets[kept], pictures()[kept]) for kept in ([0, 1, 2], [0, 2])
    )
    assert output.kept.tolist() == [True, False, True]
    assert torch.equal(output.scores, without.scores)
    assert losses == expected


def test_a_batch_without_any_present_label_costs_nothing(towers):
    _, losses = step(build(towers), torch.zeros(3, 4))
    losses["ranking"].backward()
    assert losses["ranking"] == 0


def test_the_losses_of_an_evaluation_are_of_all_images(towers):
    model, targets = build(towers).eval(), torch.eye(3, 4)
    output = model(pictures(), model.encode_labels(SEEN))
    assert output.kept is None
    assert model.losses(output, targets) == {"ranking": normalised_ranking_loss(output.scores, targets)}


def test_the_head_alone_is_trained_and_kept(towers):
    model = build(towers, "SOLVER.BASE_LR", "0.5", "SOLVER.WEIGHT_DECAY", "0.25")
    (group,) = model.groups()
    assert group[2:] == ("adam", 0.5, 0.25, 0.0)
    assert {id(p) for p in group.parameters} == {id(p) for p in model.parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in model.trained_state()} == {"head"}


def test_a_score_is_the_mean_of_as_many_regions_as_the_key_says(towers):
    every, best = (build(towers, "MODEL.BIAM.TOP_K", k).eval() for k in ("16", "1"))
    assert (
        every(pictures(), every.encode_labels(SEEN)).scores < best(pictures(), best.encode_labels(SEEN)).scores
    ).all()


def test_scores_are_computed_in_float32_whatever_the_rest_is_computed_in(towers):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, losses = step(build(towers), torch.eye(3, 4))
    losses["ranking"].backward()
    assert output.scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("CHANNELS", "15", "a multiple of the 2 heads, not 15"),
        ("TOP_K", "17", "between 1 and the 16 regions of an image, not 17"),
    ],
)
def test_impossible_settings_are_refused_by_name(towers, key, value, wanted):
    with pytest.raises(ModelError, match=rf"MODEL\.BIAM\.{key} must be {wanted}"):
        build(towers, f"MODEL.BIAM.{key}", value)


def test_it_is_trained_and_tested_by_the_scripts(benchmark, train_script, test_script):
    cfg = benchmark.config(
        "MODEL.METHOD", "biam", "MODEL.BIAM.CHANNELS", "16", "MODEL.BIAM.HEADS", "2", "MODEL.USE_EMA", "False",
        "SOLVER.EVAL_PERIOD", "2",
    )  # fmt: skip
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss_ranking"] for line in logged if line["kind"] == "train"]
    assert losses[-1] < losses[0]
    assert {name.split(".")[0] for name in load_state(run / "checkpoint.pth").model} == {"head"}
    test_script.test(cfg)
    results = json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]
    assert list(results["BiAM"]) == ["ZSL", "GZSL"]  # unseen labels alone, and all of them


def test_the_table_of_methods_knows_it(towers):
    assert "biam" in METHODS
    assert isinstance(build(towers), BiAM)
