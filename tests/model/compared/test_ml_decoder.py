"""ML-Decoder against its official code, and as a method that is trained and tested."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from configs import load_config
from engine.optim import optimizers
from engine.run import newest_run
from engine.state import load_state
from loss.summed_asl_loss import summed_asl_loss
from model import ModelError, build_method
from model.compared.ml_decoder import Answers, LabelDecoder

ROOT = Path(__file__).parents[3]
OFFICIAL = np.load(ROOT / "tests" / "data" / "release_ml_decoder.npz")
RECIPE = ROOT / "configs" / "methods" / "ml-decoder.yml"
NAMES = ("dog", "traffic light", "person")
SMALL = ("MODEL.METHOD", "ml-decoder", "MODEL.ML_DECODER.WIDTH", "16", "MODEL.ML_DECODER.HEADS", "2",
         "MODEL.ML_DECODER.HIDDEN", "32")  # fmt: skip


def stored(name):
    return torch.from_numpy(OFFICIAL[name].astype(np.float32))


def error(found, name):
    expected = OFFICIAL[name].astype(np.float64)
    return np.linalg.norm(found.detach().numpy() - expected) / np.linalg.norm(expected)


def build(towers, *overrides, texts=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = load_config(ROOT / "configs" / "tiny.yml", [*SMALL, *overrides])
        return build_method(cfg, towers, texts=texts or {}).eval()


def pixels(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def official():
    """The decoder of the official numbers, in evaluation mode."""
    decoder = LabelDecoder(feature_width=48, label_width=300, width=32, heads=8, hidden=2048, dropout=0.1)
    state = {name.removeprefix("param/"): stored(name) for name in OFFICIAL.files if name.startswith("param/")}
    decoder.load_state_dict(state | {"head.weight": state["head.weight"].T})
    return decoder.eval()


def test_logits_of_both_label_sets_are_those_of_official_code(official):
    features = stored("in/features")
    assert error(official(features, stored("in/labels")), "out/logits") < 2e-6
    assert error(official(features, stored("in/labels.test")), "out/logits.test") < 2e-6


def test_loss_and_gradients_are_those_of_official_code(official):
    features = stored("in/features").requires_grad_()
    logits = official(features, stored("in/labels"))
    loss = summed_asl_loss(
        logits, stored("in/targets"), gamma_neg=4.0, gamma_pos=0.0, clip=0.05, smallest=1e-8
    )  # fmt: skip
    loss.backward()
    found = {name: parameter.grad for name, parameter in official.named_parameters()} | {"features": features.grad}
    found["head.weight"] = found["head.weight"].T
    expected = {name.removeprefix("grad/") for name in OFFICIAL.files if name.startswith("grad/")} - {"logits"}
    assert error(loss, "out/loss") < 1e-6
    assert {name.removesuffix(".rows0to3") for name in expected} == found.keys()
    for name in expected:
        whole = found[name.removesuffix(".rows0to3")]
        assert error(whole[:4] if name.endswith("rows0to3") else whole, f"grad/{name}") < 1e-5, name


def test_a_label_is_scored_for_itself(towers):
    model = build(towers)
    together = model(pixels(), model.encode_labels(NAMES)).logits
    alone = model(pixels(), model.encode_labels(NAMES[1:2])).logits
    torch.testing.assert_close(together[:, 1:2], alone)


def test_scores_are_the_probabilities_of_the_logits_in_float32(towers):
    model = build(towers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(pixels(), model.encode_labels(NAMES))
    assert (found.logits.dtype, found.scores.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(found.scores, 1 / (1 + (-found.logits.float()).exp()))


def test_labels_are_frozen_text_features_of_their_texts(towers):
    model = build(towers, "MODEL.TEMPLATE", "{}!", texts={"a": "two words!"})
    labels = model.encode_labels(["a", "dog"])
    expected = towers.text(towers.tokenize(["two words!", "dog!"]))
    torch.testing.assert_close(labels, expected)


def test_regions_are_the_normalised_patches_of_the_last_block(towers):
    model, kept = build(towers), []
    hook = towers.visual.transformer.register_forward_hook(lambda _, inputs, output: kept.append(output))  # noqa: ARG005
    towers.visual(pixels())
    hook.remove()
    patches = towers.visual.ln_post(kept[0])[:, 1:]
    torch.testing.assert_close(model.stem(pixels()), patches, rtol=1e-4, atol=1e-5)


def test_dropout_is_drawn_for_every_image_and_in_training_only(towers):
    model, images = build(towers, "MODEL.ML_DECODER.DROPOUT", "0.5"), pixels(1).expand(2, -1, -1, -1)
    first, second = model(images, model.encode_labels(NAMES)).logits
    torch.testing.assert_close(first, second)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = model.train()(images, model.encode_labels(NAMES)).logits
    assert not torch.allclose(first, second, atol=1e-3)


def test_queries_meet_dropout_image_by_image():
    decoder = LabelDecoder(feature_width=4, label_width=4, width=64, heads=1, hidden=4, dropout=0.5)
    for part in (decoder.attention.out_proj, decoder.linear2):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = decoder(torch.ones(2, 3, 4), torch.ones(1, 4))
    assert not torch.allclose(first, second, atol=1e-3)


def test_images_without_a_label_are_no_part_of_the_loss(towers):
    model = build(towers, "SOLVER.GAMMA_NEG", "4.0", "SOLVER.CLIP", "0.05", "MODEL.LOSS_WEIGHT", "0.5")
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[1, 0, 0], [0, 0, 0], [0, -1, 1], [-1, -1, 0]])
    loss = model.losses(Answers(logits.sigmoid(), logits), targets)["asl"]
    loss.backward()
    settings = {"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "smallest": 1e-8}
    torch.testing.assert_close(loss, 0.5 * summed_asl_loss(logits[[0, 2]], targets[[0, 2]], **settings))
    assert torch.equal(logits.grad[[1, 3]], torch.zeros(2, 3))
    assert (logits.grad[[0, 2]] != 0).any()


def test_a_batch_without_any_label_costs_nothing(towers):
    model = build(towers)
    loss = model.losses(model(pixels(), model.encode_labels(NAMES)), torch.zeros(2, 3))["asl"]
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in model.decoder.parameters())


def test_only_matrices_are_decayed_and_everything_else_of_the_decoder_is_trained_too(towers):
    model = build(towers, "SOLVER.BASE_LR", "0.25", "SOLVER.WEIGHT_DECAY", "0.5")
    matrices, vectors = model.groups()
    assert {p.ndim for p in matrices.parameters} == {2}
    assert {p.ndim for p in vectors.parameters} == {1}
    assert [(group.optimizer, group.lr, group.weight_decay) for group in (matrices, vectors)] == [
        ("adam", 0.25, 0.5), ("adam", 0.25, 0.0)
    ]  # fmt: skip
    grouped = sum(p.numel() for group in (matrices, vectors) for p in group.parameters)
    assert grouped == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_towers_are_not_trained_and_not_in_checkpoints(towers):
    model = build(towers)
    model(pixels(), model.encode_labels(NAMES)).logits.sum().backward()
    assert all(p.grad is None for tower in (towers.visual, towers.text) for p in tower.parameters())
    assert {name.split(".")[0] for name in model.trained_state()} == {"decoder"}


def test_the_head_starts_as_officially(towers):
    head = build(towers, "MODEL.ML_DECODER.WIDTH", "4096").decoder.head
    assert head.bias.item() == 0
    assert head.weight.std().item() == pytest.approx((2 / 4097) ** 0.5, rel=0.05)


def test_a_width_that_the_heads_do_not_share_is_refused(towers):
    with pytest.raises(ModelError, match="MODEL.ML_DECODER.WIDTH must be a multiple of the 2 heads, not 15"):
        build(towers, "MODEL.ML_DECODER.WIDTH", "15")


@pytest.mark.parametrize(
    ("key", "value", "look"),
    [("WIDTH", 8, lambda d: d.head.in_features), ("HEADS", 4, lambda d: d.attention.num_heads),
     ("HIDDEN", 5, lambda d: d.linear1.out_features), ("DROPOUT", 0.3, lambda d: d.dropout.p),
     ("DROPOUT", 0.3, lambda d: d.attention.dropout)],
)  # fmt: skip
def test_the_decoder_obeys_its_keys(towers, key, value, look):
    assert look(build(towers).decoder) != value
    assert look(build(towers, f"MODEL.ML_DECODER.{key}", str(value)).decoder) == value


def test_the_recipe_is_the_official_one():
    cfg = load_config([ROOT / "configs" / "coco.yml", RECIPE])
    solver, decoder = cfg.SOLVER, cfg.MODEL.ML_DECODER
    assert (decoder.WIDTH, decoder.HEADS, decoder.HIDDEN, decoder.DROPOUT) == (768, 8, 2048, 0.1)
    assert (solver.GAMMA_NEG, solver.GAMMA_POS, solver.CLIP, solver.WEIGHT_DECAY) == (4.0, 0.0, 0.05, 1e-2)
    assert (solver.SCHEDULE, solver.BASE_LR, solver.MAX_EPOCHS) == ("one-cycle", 1e-4, 40)
    assert solver.WARMUP_EPOCHS / solver.MAX_EPOCHS == 0.2
    assert pytest.approx(solver.WARMUP_LR) == solver.BASE_LR / 25
    assert pytest.approx(solver.MIN_LR) == solver.WARMUP_LR / 1e4


def test_the_loss_of_a_batch_falls(towers):
    model = build(towers, "SOLVER.BASE_LR", "1e-2", "SOLVER.GAMMA_NEG", "4.0").train()
    pair, targets = optimizers(model.groups()), torch.eye(3)
    labels = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))  # random towers tell no names apart
    losses = []
    for _ in range(30):
        loss = model.losses(model(pixels(3), labels, targets), targets)["asl"]
        pair.zero_grad()
        loss.backward()
        pair.step(torch.amp.GradScaler("cpu", enabled=False), torch.tensor(True))  # noqa: FBT003
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_it_is_trained_tested_and_resumed(benchmark, train_script, test_script):
    cfg = load_config([ROOT / "configs" / "tiny.yml", RECIPE], [*benchmark.overrides, *SMALL, "SOLVER.MAX_EPOCHS", "2"])
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {"loss", "loss_asl", "lr_matrices", "lr_vectors"} <= lines[0].keys()
    state = load_state(run / "checkpoint.pth")
    torch.manual_seed(cfg.SOLVER.SEED)
    before = train_script.Run(cfg).model.trained_state()
    assert [name for name in before if torch.equal(before[name], state.model[name])] == []
    test_script.test(cfg)
    results = json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]
    assert {method: list(found) for method, found in results.items()} == dict.fromkeys(
        ("zero-shot CLIP", "ML-Decoder", "ML-Decoder (EMA)"), ["ZSL", "GZSL"]
    )
    train_script.train(cfg, str(run))  # nothing is left to do, and everything is found again
    after = load_state(run / "checkpoint.pth")
    assert all(torch.equal(state.model[name], after.model[name]) for name in state.model)
