"""RAM's label side: its own prompts, and those that Table 7 puts in their place."""

import pytest
import torch
import torch.nn.functional as F

from clip.contexts import Context, encode_behind
from clip.text import TextEncoder
from configs import load_config
from engine.checkpoint import load_checkpoint
from model import Labels, ModelError, build_method
from model.labels import ContextPrompts, DeepLabelPrompts, DualContextPrompts
from model.matchers import Average

TINY = ["MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random", "MODEL.DEPTH_VISION", "(1, 2)",
        "MODEL.DEPTH_TEXT", "(1, 2)", "MODEL.TEXT_CTX", "2", "MODEL.VISION_ADAPT", "3", "INPUT.SIZE_TRAIN", "(32, 32)",
        "INPUT.SIZE_TEST", "(32, 32)"]  # fmt: skip
ALONE = ("MODEL.TSS", "False", "MODEL.SAA_LAYER", "none", "MODEL.MATCHER", "average")  # no LLA, no KCOT
NAMES = ("dog", "traffic light", "person", "car", "kite")
TARGETS = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
VECTORS = {"coop": ["context.vectors"], "dualcoop": ["positive.vectors", "negative.vectors"]}


def build(towers, prompting, *overrides):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = load_config(overrides=[*TINY, "MODEL.LABEL_PROMPTING", prompting, *overrides])
        return build_method(cfg, towers).eval()


def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def text_of(towers, prompted=()):
    return TextEncoder(towers.text, towers.tokenize, template="A photo of a {}.", prompted=prompted)


def test_without_negative_texts_the_contrast_is_the_cosines_themselves():
    cosines = drawn(3, 4)
    assert Labels(NAMES, drawn(4, 8), drawn(4, 8)).contrast(drawn(3, 8), cosines) is cosines


def test_negative_texts_are_taken_off():
    features, cosines, negative = F.normalize(drawn(2, 3, 8), dim=-1), drawn(2, 3, 4, seed=1), drawn(4, 8, seed=2)
    found = Labels(NAMES, drawn(4, 8), drawn(4, 8), negative).contrast(features, cosines)
    expected = cosines - F.cosine_similarity(features[:, :, None], negative, dim=-1)
    torch.testing.assert_close(found, expected)


def test_deep_prompts_are_those_of_the_text_tower(towers):
    text, prompts = text_of(towers, (1, 2)), DeepLabelPrompts((1, 2), count=2, width=64)
    labels = prompts.encode(text, NAMES)
    assert torch.equal(labels.features, text(NAMES, prompts()))
    assert torch.equal(prompts.tokens(text, NAMES), text.tokens(NAMES))
    assert labels.negative is None
    assert not prompts.has_negatives


def test_a_context_takes_the_place_of_the_template(towers):
    text, prompts = text_of(towers), ContextPrompts(Context(drawn(4, 64), recompute=False))
    labels = prompts.encode(text, NAMES)
    assert torch.equal(labels.features, encode_behind(text, text.bare(NAMES), drawn(4, 64)))
    assert torch.equal(labels.frozen, text.prefix(NAMES).plain)
    assert torch.equal(prompts.tokens(text, NAMES), text.bare_tokens(NAMES))
    assert labels.names == NAMES
    assert labels.negative is None
    assert not prompts.has_negatives


def test_two_contexts_give_labels_a_positive_and_a_negative_text(towers):
    text = text_of(towers)
    contexts = [Context(drawn(4, 64, seed=seed), recompute=False) for seed in (0, 1)]
    prompts = DualContextPrompts(*contexts)
    labels = prompts.encode(text, NAMES)
    assert torch.equal(labels.features, contexts[0](text, NAMES))
    assert torch.equal(labels.negative, contexts[1](text, NAMES))
    assert torch.equal(labels.frozen, text.prefix(NAMES).plain)
    assert torch.equal(prompts.tokens(text, NAMES), text.bare_tokens(NAMES))
    assert prompts.has_negatives


@pytest.mark.parametrize("prompting", VECTORS)
def test_contexts_replace_the_deep_prompts_in_what_is_trained(towers, prompting):
    deep, model = build(towers, "deep"), build(towers, prompting)
    expected = {name for name in deep.trained_state() if not name.startswith("label_prompts")}
    assert set(model.trained_state()) == expected | {f"label_prompts.{name}" for name in VECTORS[prompting]}
    parts = [p for group in model.groups() for p in group.parameters]
    assert {id(p) for p in parts} == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.shape == (4, 64) for p in model.label_prompts.parameters())


def test_deep_prompts_give_the_logits_of_the_equations_to_the_bit(towers):
    model = build(towers, "deep")
    labels = model.encode_labels(NAMES)
    found = model(images(), labels, TARGETS)
    text = F.normalize(labels.features, dim=-1)
    features = model.trunk.finish(model.trunk.stem(images()), model.visual_prompts())
    regions = model.trunk.project(model.adapter(features, labels.features))
    similarity = F.normalize(regions, dim=-1) @ text.T
    assert torch.equal(found.similarity, similarity)
    assert torch.equal(found.local_logits, (found.matching.plan * similarity).sum(1) / model.local_temperature)
    assert torch.equal(found.global_logits, F.normalize(features.cls, dim=-1) @ text.T / model.global_temperature)


def test_everything_else_is_drawn_as_for_deep_prompts(towers):
    states = [build(towers, prompting).trained_state() for prompting in ("deep", "coop")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items() if "label_prompts" not in name)


@pytest.mark.parametrize("prompting", VECTORS)
@pytest.mark.parametrize("overrides", [(), ALONE, ("MODEL.MATCHER", "reweight")])
def test_a_step_reaches_all_that_is_trained(towers, prompting, overrides):
    model = build(towers, prompting, *overrides).train()
    output = model(images(), model.encode_labels(NAMES), TARGETS)
    torch.stack(list(model.losses(output, TARGETS).values())).sum().backward()
    gradients = [p.grad for group in model.groups() for p in group.parameters]
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    assert all(p.grad is None for tower in (model.trunk, model.text) for p in tower.parameters())


@pytest.mark.parametrize("targets", [None, TARGETS])
def test_a_pair_has_one_plan_and_logits_that_are_differences(towers, targets):
    model = build(towers, "dualcoop")
    labels = model.encode_labels(NAMES)
    found = model(images(), labels, targets)
    positive = model(images(), labels._replace(negative=None), targets)
    assert torch.equal(found.matching.plan, positive.matching.plan)  # of the positive texts
    features = model.trunk.finish(model.trunk.stem(images()), model.visual_prompts())
    regions = model.trunk.project(model.adapter(features, labels.features))  # to which TSS attends too
    against = F.cosine_similarity(regions[:, :, None], labels.negative, dim=-1)
    local = positive.local_logits - (found.matching.plan * against).sum(1) / 2e-3
    torch.testing.assert_close(found.local_logits, local, rtol=1e-3, atol=1e-3)
    against = F.cosine_similarity(features.cls[:, None], labels.negative, dim=-1)
    torch.testing.assert_close(found.global_logits, positive.global_logits - against / 1e-2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prompting", VECTORS)
def test_the_teacher_reads_the_template(towers, prompting):
    frozen = build(towers, "deep").encode_labels(NAMES).frozen
    assert torch.equal(build(towers, prompting).encode_labels(NAMES).frozen, frozen)


@pytest.mark.parametrize("prompting", VECTORS)
def test_prompting_alone_averages_clips_own_patches(towers, prompting):
    model = build(towers, prompting, *ALONE, "MODEL.VISION_ADAPT", "0")
    assert isinstance(model.matcher, Average)
    labels = model.encode_labels(NAMES)
    patches = model.trunk.project(model.trunk.finish(model.trunk.stem(images()), {}).saa)
    cosines = F.cosine_similarity(patches[:, :, None], labels.features, dim=-1)
    if labels.negative is not None:
        cosines = cosines - F.cosine_similarity(patches[:, :, None], labels.negative, dim=-1)
    expected = cosines.mean(1) / (len(NAMES) * 2e-3)
    torch.testing.assert_close(model(images(), labels).local_logits, expected, rtol=1e-3, atol=1e-3)


def test_contexts_obey_their_keys(towers):
    keys = ("MODEL.CONTEXT.COUNT", "3", "MODEL.CONTEXT.WORDS", "a photo of a", "MODEL.CONTEXT.RECOMPUTE", "True")
    prompts = build(towers, "dualcoop", *keys).label_prompts
    assert (len(prompts.positive.vectors), len(prompts.negative.vectors)) == (4, 3)
    assert prompts.positive.recompute
    assert prompts.negative.recompute
    assert len(build(towers, "coop", *keys[:2]).label_prompts.context.vectors) == 3


def test_a_context_without_vectors_is_refused(towers):
    with pytest.raises(ModelError, match="MODEL.CONTEXT.COUNT must be between 1 and 74, not 0"):
        build(towers, "coop", "MODEL.CONTEXT.COUNT", "0")


@pytest.mark.parametrize("prompting", VECTORS)
def test_ram_with_contexts_is_trained_resumed_and_tested(benchmark, train_script, test_script, prompting, capsys):
    cfg = benchmark.config("MODEL.LABEL_PROMPTING", prompting, "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    first = load_checkpoint(run / "checkpoint.pth")["model"]
    train_script.train(benchmark.config("MODEL.LABEL_PROMPTING", prompting), str(run))
    last = load_checkpoint(run / "checkpoint.pth")
    names = [f"label_prompts.{name}" for name in VECTORS[prompting]]
    assert all(not torch.equal(last["model"][name], first[name]) for name in names)
    assert last["ema"].keys() == last["model"].keys()
    without = "no probabilities: scores by label know no negative texts: MODEL.LABEL_PROMPTING deep or coop has none"
    assert (without in capsys.readouterr().out) == (prompting == "dualcoop")
    test_script.test(cfg)
    (results,) = (run / "test").iterdir()
    rows = (results / "results.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in rows[1::2]] == ["zero-shot CLIP", "RAM", "RAM (EMA)"]
