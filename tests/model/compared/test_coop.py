"""CoOp: the numbers of its release, and whole trainings."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from clip.contexts import Context, word_context
from configs import load_config
from engine.state import load_state
from model import build_method, build_zero_shot
from model.compared.coop import Classification, CoOp

ROOT = Path(__file__).parents[3]
RELEASE = np.load(ROOT / "tests" / "data" / "release_coop.npz")
TINY = ["MODEL.METHOD", "coop", "MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random"]
NAMES = ("dog", "traffic light", "person")
TARGETS = torch.tensor([[1, 0, 1], [0, 1, 0]])


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key):
    expected = released(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


def build(towers, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(load_config(overrides=[*TINY, *overrides]), towers).eval()


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def test_logits_loss_and_gradients_are_those_of_the_release(towers, released_text, released_labels):
    method = build(towers, "MODEL.LOSS_TYPE", "MMC-IMAGE")
    scale = np.load(ROOT / "tests" / "data" / "release_open.npz")["clip/logit_scale"]
    method.scale, method.text = float(np.exp(scale)), released_text
    method.context = Context(released("param/context"), recompute=False)
    features = released("in/global_features").requires_grad_()
    labels = method.encode_labels(released_labels)
    logits = method.logits(features, labels)
    targets = F.one_hot(released("in/targets").long(), 10)
    (loss,) = method.losses(Classification(logits.softmax(-1), logits), targets).values()
    loss.backward()
    found = {"out/text_features": labels, "out/logits": logits, "out/loss": loss,
             "grad/context": method.context.vectors.grad, "grad/global_features": features.grad}  # fmt: skip
    assert {key: error(value, key) < 2e-5 for key, value in found.items()} == dict.fromkeys(found, True)


def test_behind_the_words_of_the_template_it_is_zero_shot_clip(towers):
    method = build(towers, "MODEL.CONTEXT.WORDS", "a photo of a")
    cfg = load_config(overrides=[*TINY, "MODEL.TEMPLATE", "a photo of a {}.", "INPUT.PIXEL_MEAN",
                                 "(0.48145466, 0.4578275, 0.40821073)", "INPUT.PIXEL_STD",
                                 "(0.26862954, 0.26130258, 0.27577711)"])  # fmt: skip
    zero_shot = build_zero_shot(cfg, towers)
    found = method(images(), method.encode_labels(NAMES)).scores
    torch.testing.assert_close(found, zero_shot(images(), zero_shot.encode_labels(NAMES)).scores, rtol=1e-3, atol=1e-5)


def test_the_loss_is_the_configured_one_with_its_weight(towers):
    names = {"MMC": 1.0, "ASL-PLAIN": 0.5}
    found = {}
    for kind, weight in names.items():
        method = build(towers, "MODEL.LOSS_TYPE", kind, "MODEL.LOSS_WEIGHT", str(weight))
        output = method(images(), method.encode_labels(NAMES), TARGETS)
        (found[kind],) = method.losses(output, TARGETS).values()
        torch.testing.assert_close(found[kind], weight * method.loss(output.logits, TARGETS))
    assert found["MMC"] != found["ASL-PLAIN"]


def test_steps_lower_the_loss_and_move_nothing_but_the_context(towers):
    method = build(towers, "MODEL.LOSS_TYPE", "MMC-IMAGE").train()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    (group,) = method.groups()
    assert [id(p) for p in group.parameters] == [id(p) for p in method.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.SGD(group.parameters, lr=1e-2), []
    for _ in range(5):
        (loss,) = method.losses(method(images(), method.encode_labels(NAMES)), TARGETS).values()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = [name for name, value in method.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["context.vectors"]


def test_the_context_is_trained_by_sgd_at_the_rate_of_prompts(towers):
    (group,) = build(towers, "SOLVER.BASE_LR_SGD", "0.5", "SOLVER.WEIGHT_DECAY_SGD", "0.25").groups()
    assert group[2:] == ("sgd", 0.5, 0.25, 0.9)


def test_the_context_starts_as_words(towers):
    method = build(towers, "MODEL.CONTEXT.WORDS", "a photo of a", "MODEL.CONTEXT.COUNT", "7")
    assert torch.equal(method.context.vectors, word_context(method.text, "a photo of a"))


def test_bfloat16_autocast_gives_logits_in_float32(towers):
    method = build(towers)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method(images(), method.encode_labels(NAMES))
    assert found.logits.dtype == torch.float32
    expected = method(images(), method.encode_labels(NAMES))
    assert (found.scores - expected.scores).abs().max() < 0.1


def test_it_is_trained_tested_and_resumed(benchmark, train_script, test_script):
    cfg = benchmark.config("MODEL.METHOD", "coop", "SOLVER.MAX_EPOCHS", "1", "MODEL.CONTEXT.RECOMPUTE", "True")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    first = load_state(run / "checkpoint.pth")
    assert list(first.model) == list(first.ema) == ["context.vectors"]
    train_script.train(benchmark.config(
        "MODEL.METHOD", "coop", "SOLVER.MAX_EPOCHS", "2", "MODEL.CONTEXT.RECOMPUTE", "True"
    ), str(run))  # fmt: skip
    last = load_state(run / "checkpoint.pth")
    assert not torch.equal(last.model["context.vectors"], first.model["context.vectors"])
    test_script.test(cfg)
    (results,) = (run / "test").iterdir()
    rows = (results / "results.csv").read_text()
    assert {"zero-shot CLIP", "CoOp", "CoOp (EMA)"} == {line.split(",")[0] for line in rows.splitlines()[1:]}
    assert "ZSL" in rows


def test_its_configuration_is_that_of_its_release(towers):
    files = [ROOT / "configs" / name for name in ("tiny.yml", "methods/coop.yml")]
    cfg = load_config(files)
    method = build_method(cfg, towers)
    assert isinstance(method, CoOp)
    assert method.context.vectors.shape == (16, 64)
    assert method.groups()[0][2:] == ("sgd", 0.002, 5e-4, 0.9)
    assert (cfg.SOLVER.MAX_EPOCHS, load_config(files[1]).SOLVER.IMS_PER_BATCH) == (50, 32)
