"""CoMC: its sentences and its equations, and that it trains on names alone."""

import json
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from clip.load import IMAGENET_TEMPLATES
from configs import load_config
from engine.run import newest_run
from engine.state import load_state
from loss import ranking_loss
from model import ModelError, build_method
from model.compared.comc import drawn_sentences, in_words, single_sentences
from tagging.build import build as build_tagger
from tagging.portable import parts_of

LABELS = ("cat", "traffic light", "dog", "kite")
FILES = ["configs/tiny.yml", "configs/methods/comc.yml"]
FEW = ["MODEL.COMC.SENTENCES", "12", "MODEL.COMC.BATCH", "8"]


def build(towers, *overrides, labels=LABELS, texts=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_method(load_config(FILES, [*FEW, *overrides]), towers, labels=labels, texts=texts or {})


@pytest.fixture
def model(towers):
    return build(towers)


def images(count=2):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def sentences(count=400, labels=LABELS, seed=0):
    return list(drawn_sentences(labels, template="a photo of a {}.", count=count, seed=seed))


def test_names_are_joined_as_in_a_sentence():
    found = [in_words(LABELS[:count]) for count in (1, 2, 3)]
    assert found == ["cat", "cat and traffic light", "cat, traffic light and dog"]


def test_drawn_sentences_name_different_labels_in_their_order():
    for text, named in sentences():
        assert len(set(named)) == len(named)
        assert text == f"a photo of a {in_words([LABELS[index] for index in named])}."


@pytest.mark.parametrize(("labels", "sizes"), [(LABELS, {1, 2, 3, 4}), (tuple("abcdefgh"), {1, 2, 3, 4, 5})])
def test_drawn_sentences_name_one_to_five_labels_each_number_and_label_alike(labels, sizes):
    found = sentences(labels=labels, count=2000)
    counts = Counter(len(named) for _, named in found)
    assert set(counts) == sizes
    assert min(counts.values()) > 0.8 * max(counts.values())
    of_labels = Counter(label for _, named in found for label in named)
    assert min(of_labels.values()) > 0.8 * max(of_labels.values())


def test_the_seed_decides_the_sentences():
    assert sentences() == sentences()
    assert sentences() != sentences(seed=1)


def test_each_label_has_a_sentence_of_every_template_or_its_own_text():
    found = list(single_sentences(("cat", "dog"), {"dog": "a good dog"}, templates=["a {}.", "the {}."]))
    assert found == [("a cat.", [0]), ("the cat.", [0]), ("a good dog", [1]), ("a good dog", [1])]


def test_the_corpus_holds_drawn_sentences_and_89_of_each_label(towers):
    model = build(towers, texts={"kite": "a kite in the wind"})
    assert model.corpus.features.shape == (12 + 89 * 4, 32)
    torch.testing.assert_close(model.corpus.features.norm(dim=1), torch.ones(12 + 89 * 4))
    named = [set(named) for _, named in sentences(12, seed=42)]
    found = [set(row.nonzero().flatten().tolist()) for row in model.corpus.targets]
    assert found == [*named, *({label} for label in range(4) for _ in range(89))]
    plain = F.normalize(model.text.features(["a photo of a cat.", "a kite in the wind"]), dim=-1)
    torch.testing.assert_close(model.corpus.features[12:21], plain[:1].expand(9, -1))
    torch.testing.assert_close(model.corpus.features[-89:], plain[1:].expand(89, -1))


def test_a_training_step_sees_sentences_with_noise_and_no_image(model):
    rows, targets = model.encode_labels(LABELS[:2]), torch.zeros(2, 2)
    torch.manual_seed(3)
    found = model(torch.full((2, 3, 32, 32), torch.nan), rows, targets)
    torch.manual_seed(3)
    drawn = torch.randint(12 + 89 * 4, (8,))
    noise = torch.randn(8, 32)
    features = model.corpus.features[drawn] + 0.1 * noise
    torch.testing.assert_close(found.scores, features @ model.classifier.weight.T)
    assert torch.equal(found.targets, model.corpus.targets[drawn])
    expected = ranking_loss(found.scores, model.corpus.targets[drawn])
    assert model.losses(found, targets) == {"sentences": expected}


def test_scores_are_half_of_the_image_and_half_of_its_best_region(model):
    features, regions = model.trunk.dense_features(images())
    bank = F.normalize(
        torch.stack([F.normalize(model.text.features([t.format(name) for name in LABELS]), dim=-1)
                     for t in IMAGENET_TEMPLATES]).mean(0), dim=-1,
    )  # fmt: skip

    def classified(x):
        x = F.normalize(x, dim=-1)
        weights = (model.scale * x @ bank.T).softmax(-1)
        projected = F.normalize(sum(weights[..., [row]] * bank[row] for row in range(4)), dim=-1)
        return (0.7 * x + 0.3 * projected) @ model.classifier.weight.T

    expected = (classified(features) + classified(regions).amax(1)) / 2
    found = model(images(), model.encode_labels(LABELS)).scores
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_labels_are_rows_of_the_classifier_in_any_order(model):
    whole = model(images(), model.encode_labels(LABELS)).scores
    few = model(images(), model.encode_labels(("kite", "cat"))).scores
    torch.testing.assert_close(few, whole[:, [3, 0]])


def test_a_label_that_was_not_known_in_training_is_a_clear_error(model):
    with pytest.raises(ModelError, match="CoMC knows 4 labels, fixed in training, and 'sun' is not one"):
        model.encode_labels(("cat", "sun"))


def test_without_the_names_of_the_labels_it_is_not_built(towers):
    with pytest.raises(ModelError, match="comc classifies labels that are fixed in training, and none are known here"):
        build(towers, labels=())


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [(("cat", "traffic light", "dog", "sun"), "for other labels: 'kite' is on one side only"),
     (("traffic light", "cat", "dog", "kite"), "for the same labels in another order")],
)  # fmt: skip
def test_weights_of_other_labels_are_refused(towers, model, labels, complaint):
    other = build(towers, labels=labels)
    before = other.classifier.weight.clone()
    with pytest.raises(ModelError, match=complaint):
        other.load_trained_state(model.trained_state())
    assert torch.equal(other.classifier.weight, before)


def test_only_the_classifier_is_trained_and_kept_with_its_names(towers, model):
    assert set(model.trained_state()) == {"classifier.weight", "names"}
    (group,) = model.groups()
    assert (group.parameters, group.lr, group.weight_decay) == ([model.classifier.weight], 1e-3, 5e-4)
    other = build(towers, "SOLVER.SEED", "1")
    torch.nn.init.zeros_(other.classifier.weight)
    other.load_trained_state(model.trained_state())
    assert torch.equal(other.classifier.weight, model.classifier.weight)


def test_half_precision_towers_are_classified_in_float32(model):
    rows = model.encode_labels(LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, told = model(images(), rows).scores, model(images(), rows, torch.zeros(2, 4)).scores
    assert found.dtype == told.dtype == torch.float32
    torch.testing.assert_close(found, model(images(), rows).scores, rtol=0.05, atol=0.05)


def test_the_loss_of_the_sentences_falls(towers):
    model = build(towers, "MODEL.COMC.NOISE", "0.0", "MODEL.COMC.BATCH", "64")
    optimizer = torch.optim.Adam(model.groups()[0].parameters, lr=0.1)
    rows, targets, losses = model.encode_labels(LABELS), torch.zeros(2, 4), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(150):
            loss = model.losses(model(images(), rows, targets), targets)["sentences"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def config(benchmark, *overrides):
    return load_config(FILES, [*benchmark.overrides, *FEW, "SOLVER.MAX_EPOCHS", "1", *overrides])


def test_it_is_trained_and_tested_on_seen_and_unseen_labels(benchmark, train_script, test_script):
    cfg = config(benchmark)
    train_script.train(cfg, None)
    (run,) = benchmark.runs.iterdir()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all({"loss_sentences", "lr_classifier"} <= line.keys() for line in lines if line["kind"] == "train")
    assert set(load_state(run / "checkpoint.pth").model) == {"classifier.weight", "names"}
    test_script.test(cfg)
    results = json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]
    assert list(results) == ["zero-shot CLIP", "CoMC"]
    assert set(results["CoMC"]) == {"ZSL", "GZSL"}


def test_a_tagger_asks_the_labels_of_its_checkpoint(benchmark, train_script):
    train_script.train(config(benchmark), None)
    (run,) = benchmark.runs.iterdir()
    state = load_state(run / "checkpoint.pth")
    method = build_tagger(parts_of(state)).method
    assert method.labels == (*state.seen, *state.unseen)
    assert torch.equal(method.classifier.weight, state.model["classifier.weight"])


def test_a_killed_training_goes_on_to_the_same_bits(benchmark, train_script, monkeypatch):
    cfg = config(benchmark, "SOLVER.MAX_EPOCHS", "2", "SOLVER.CHECKPOINT_PERIOD", "1")
    train_script.train(cfg, None)
    (whole,) = benchmark.runs.iterdir()
    killed = config(benchmark, "SOLVER.MAX_EPOCHS", "2", "SOLVER.CHECKPOINT_PERIOD", "1", "OUTPUT_DIR",
                    str(benchmark.runs.parent / "killed"))  # fmt: skip
    save = train_script.Run.save

    def save_and_die(run, path):
        save(run, path)
        if run.step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_script.Run, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            train_script.train(killed, None)
    train_script.train(killed, "auto")
    (resumed,) = (benchmark.runs.parent / "killed").iterdir()
    found, expected = (load_state(run / "checkpoint.pth").model for run in (resumed, whole))
    assert torch.equal(found["classifier.weight"], expected["classifier.weight"])


def test_a_checkpoint_is_of_no_use_for_other_labels(benchmark, train_script, test_script):
    train_script.train(config(benchmark), None)
    listed = json.loads((benchmark.data / "test.json").read_text())
    renamed = json.loads(json.dumps(listed).replace('"kite"', '"moon"'))
    (benchmark.data / "test.json").write_text(json.dumps(renamed))
    with pytest.raises(ModelError, match="'moon' is not one"):
        test_script.test(config(benchmark))
