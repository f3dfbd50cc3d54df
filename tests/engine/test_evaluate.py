import math
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets import Protocol
from engine.ema import Ema
from engine.evaluate import Row, behind, evaluate, find, rows_of, run_methods
from engine.evaluators import TASKS
from engine.metrics import Metrics, measure
from engine.results import Result
from model.method import Method

HOW = {"device": torch.device("cpu"), "autocast": None, "progress_bar": False}
NAMES = ("cat", "dog", "kite", "tree")
WEIGHT = torch.randn(12, 4, generator=torch.Generator().manual_seed(5))


class Batch(NamedTuple):
    images: Tensor
    targets: Tensor
    paths: list[str]
    indices: Tensor


class Output(NamedTuple):
    scores: Tensor


class Loader(list):
    skipped: list[str] = []  # noqa: RUF012


def loader(size=7, batch=3, classes=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 2, 2, generator=generator)
    targets = (torch.rand(size, classes, generator=generator) > 0.5).float()
    paths = [f"{i}.jpg" for i in range(size)]
    parts = images, targets, paths, torch.arange(size)
    return Loader(Batch(*(part[s : s + batch] for part in parts)) for s in range(0, size, batch))


def linear(factor=1.0, name="linear"):
    """A method whose labels are the columns of a matrix."""

    def encode(names):
        return factor * WEIGHT[:, : len(names)]

    return Row(name, encode, lambda images, labels: Output(images.flatten(1) @ labels))


def score_images(methods, protocol, **how):
    """The scores of every method."""
    return {name: evaluator.scored() for (name, _), evaluator in run_methods(methods, protocol, **how).items()}


def joined(batches, part):
    return np.concatenate([np.asarray(getattr(batch, part)) for batch in batches])


def test_scores_are_in_the_order_of_the_images():
    batches = loader()
    found = score_images([linear()], Protocol("GZSL", NAMES, batches), **HOW)["linear"]
    expected = joined(batches, "images").reshape(7, -1) @ WEIGHT.numpy()
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5, atol=1e-6)
    assert found.images == tuple(f"{i}.jpg" for i in range(7))
    assert np.array_equal(found.targets, joined(batches, "targets"))


def test_scores_are_float32_targets_bytes_and_labels_those_of_the_protocol():
    found = score_images([linear()], Protocol("GZSL", NAMES, loader()), **HOW)["linear"]
    assert (found.scores.dtype, found.targets.dtype, found.names) == (np.float32, np.uint8, NAMES)


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_the_size_of_batches_changes_nothing(size):
    found = score_images([linear()], Protocol("GZSL", NAMES, loader(batch=size)), **HOW)["linear"]
    expected = score_images([linear()], Protocol("GZSL", NAMES, loader(batch=4)), **HOW)["linear"]
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-7)
    assert np.array_equal(found.targets, expected.targets)
    assert found.images == expected.images


def test_every_method_sees_every_image_once_and_images_are_read_once():
    seen, reads = {"a": [], "b": []}, []

    def once():
        for batch in loader():
            reads.append(len(batch.images))
            yield batch

    def method(name):
        def score(images, labels):
            seen[name].append(images)
            return Output(images.flatten(1) @ labels)

        return linear()._replace(name=name, run=score)

    score_images([method("a"), method("b")], Protocol("ZSL", NAMES, once()), **HOW)
    expected = joined(loader(), "images")
    assert all(np.array_equal(torch.cat(images), expected) for images in seen.values())
    assert reads == [3, 3, 1]


def test_labels_are_encoded_once_per_protocol():
    asked = []

    def encode(names):
        asked.append(names)
        return WEIGHT[:, : len(names)]

    protocols = [Protocol("ZSL", NAMES[:2], loader(classes=2)), Protocol("GZSL", NAMES, loader())]
    evaluate([linear()._replace(encode=encode)], protocols, **HOW)
    assert asked == [NAMES[:2], NAMES]


def test_nothing_is_recorded_for_gradients():
    weight = WEIGHT.clone().requires_grad_()
    kept = []

    def score(images, labels):
        kept.append(images.flatten(1) @ labels)
        return Output(kept[-1])

    score_images([Row("a", lambda _: 2 * weight, score)], Protocol("ZSL", NAMES, loader()), **HOW)
    assert not any(scores.requires_grad for scores in kept)


def test_labels_are_encoded_in_float32_under_mixed_precision_too():
    encoded = []

    def encode(names):
        encoded.append(torch.eye(4, len(names)) @ torch.eye(len(names)))
        return WEIGHT

    method = linear()._replace(encode=encode)
    score_images([method], Protocol("ZSL", NAMES, loader()), **HOW | {"autocast": torch.bfloat16})
    assert [found.dtype for found in encoded] == [torch.float32]


def test_mixed_precision_gives_float32_scores_near_those_without():
    protocol = Protocol("ZSL", NAMES, loader())
    exact = score_images([linear()], protocol, **HOW)["linear"].scores
    rough = score_images([linear()], protocol, **HOW | {"autocast": torch.bfloat16})["linear"].scores
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough, exact, atol=0.2)
    assert not np.array_equal(rough, exact)


def test_weights_are_applied_to_labels_and_scores_of_their_method_only():
    scale, events = {"value": 1.0}, []

    @contextmanager
    def doubled():
        scale["value"] = 2.0
        yield
        scale["value"] = 1.0

    def encode(_):
        events.append(scale["value"])
        return scale["value"] * WEIGHT

    def score(images, labels):
        return Output(scale["value"] * (images.flatten(1) @ labels))

    methods = [Row("a", encode, score), Row("b", encode, score, weights=doubled), Row("c", encode, score)]
    found = score_images(methods, Protocol("ZSL", NAMES, loader()), **HOW)
    assert events == [1, 2, 1]
    np.testing.assert_allclose(found["b"].scores, 4 * found["a"].scores, rtol=1e-6)
    assert np.array_equal(found["c"].scores, found["a"].scores)


class Model(Method):
    title = "RAM"

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())

    def encode_labels(self, names):
        return self.weight[:, : len(names)]

    def forward(self, images, labels, targets=None):  # noqa: ARG002
        return SimpleNamespace(scores=images.flatten(1) @ labels)


class ZeroShot(Model):
    title = "zero-shot CLIP"

    def forward(self, images, labels, targets=None):  # noqa: ARG002
        return SimpleNamespace(scores=-images.flatten(1) @ labels)


def test_averaged_weights_are_scored_and_the_models_own_come_back():
    model = Model()
    ema = Ema(dict(model.named_parameters()), decay=0.5)
    with torch.no_grad():
        model.weight.mul_(3)
    found = score_images(rows_of(ZeroShot(), model, ema=ema), Protocol("ZSL", NAMES, loader()), **HOW)
    np.testing.assert_allclose(found["RAM"].scores, 3 * found["RAM (EMA)"].scores, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.weight, 3 * WEIGHT)


def test_averaged_weights_are_given_back_when_scoring_fails():
    model = Model()
    ema = Ema(dict(model.named_parameters()), decay=0.5)
    with torch.no_grad():
        model.weight.mul_(3)
    rows = rows_of(ZeroShot(), model, ema=ema)
    rows[2] = rows[2]._replace(run=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score_images(rows, Protocol("ZSL", NAMES, loader()), **HOW)
    assert torch.equal(model.weight, 3 * WEIGHT)


def test_without_averaged_weights_there_is_a_row_for_each_method():
    assert [row.name for row in rows_of(ZeroShot(), Model())] == ["zero-shot CLIP", "RAM"]


def test_zero_shot_clip_scores_by_itself():
    found = score_images(rows_of(ZeroShot(), Model()), Protocol("ZSL", NAMES, loader()), **HOW)
    assert np.array_equal(found["zero-shot CLIP"].scores, -found["RAM"].scores)


def test_results_are_method_by_method_in_the_order_of_the_protocols():
    protocols = [Protocol("ZSL", NAMES[:2], loader(classes=2)), Protocol("GZSL", NAMES, loader())]
    found = evaluate([linear(name="a"), linear(-1.0, "b")], protocols, **HOW)
    assert [(r.method, r.protocol) for r in found] == [("a", "ZSL"), ("a", "GZSL"), ("b", "ZSL"), ("b", "GZSL")]
    assert [r.names for r in found] == [NAMES[:2], NAMES] * 2


class InSteps(Model):
    """Counts what it is asked for; images are halved and then doubled on the way."""

    def __init__(self):
        super().__init__()
        self.events = []

    def stem(self, images):
        self.events.append("stem")
        return {"half": images / 2, "grid": (2, 2)}

    def features(self, stem):
        self.events.append("features")
        return stem["half"] * 2, stem["grid"]

    def recognise(self, features, labels):
        self.events.append("labels")
        assert features[1] == (2, 2)
        return self(features[0], labels)


def test_weights_of_one_method_share_its_stem_and_have_features_of_their_own():
    model = InSteps()
    ema = Ema(dict(model.named_parameters()), decay=0.5)
    score_images(rows_of(model, ema=ema), Protocol("ZSL", NAMES, loader(size=3)), **HOW)
    assert model.events == ["stem", "features", "labels", "features", "labels"]


class Third(NamedTuple):
    """Every third image from the second on, under two labels."""

    whole: str = "GZSL"

    def of(self, batch):
        rows = (batch.indices % 3 == 1).nonzero().squeeze(1)
        chosen = [batch.paths[row] for row in rows]
        return rows, Batch(batch.images[rows], batch.targets[rows][:, :2], chosen, batch.indices[rows] // 3)


def protocols_with_a_part(part):
    batches = loader(size=9, batch=4)  # the last batch has no image of the part
    images, targets, paths, _ = (
        torch.cat(column) if isinstance(column[0], Tensor) else sum(column, [])
        for column in zip(*batches, strict=True)
    )  # fmt: skip
    alone = Loader([Batch(images[1::3], targets[1::3, :2], paths[1::3], torch.arange(3))])
    return [Protocol("ZSL", NAMES[:2], alone, part=part), Protocol("GZSL", NAMES, batches)]


def test_images_of_a_part_are_scored_as_they_are_alone():
    kept = [{}, {}]
    for found, part in zip(kept, (Third(), None), strict=True):
        evaluate([linear()], protocols_with_a_part(part), keep=lambda *what, to=found: to.update({what[1]: what[2]}),
                 **HOW)  # fmt: skip
    for name in ("ZSL", "GZSL"):
        together, alone = (found[name].scored() for found in kept)
        np.testing.assert_allclose(together.scores, alone.scores, rtol=1e-6)
        assert np.array_equal(together.targets, alone.targets)
        assert (together.images, together.names) == (alone.images, alone.names)


def test_images_of_a_part_are_seen_once_for_both_lists_of_labels():
    model = InSteps()
    evaluate(rows_of(model), protocols_with_a_part(Third()), **HOW)
    one = ["stem", "features", "labels"]
    assert model.events == [*one, "labels", *one, "labels", *one]


def test_a_part_is_evaluated_by_itself_where_nobody_asks_for_the_whole():
    (only,) = evaluate([linear()], protocols_with_a_part(Third())[:1], **HOW)
    assert (only.protocol, only.metrics.counts["images"]) == ("ZSL", 3)


def test_results_are_the_metrics_of_the_raw_scores_that_are_kept():
    kept = {}
    found = evaluate([linear(name="a"), linear(-1.0, "b")], [Protocol("GZSL", NAMES, loader())],
                     keep=lambda *what: kept.update({what[:2]: what[2]}), **HOW)  # fmt: skip
    assert kept.keys() == {("a", "GZSL"), ("b", "GZSL")}
    for result in found:
        scored = kept[result.method, result.protocol].scored()
        assert measure(scored.scores, scored.targets).summary == result.metrics.summary
    assert np.array_equal(kept["a", "GZSL"].scored().scores, -kept["b", "GZSL"].scored().scores)


def test_images_that_were_skipped_are_named_in_a_warning():
    batches = loader()
    batches.skipped = ["broken.jpg", "gone.jpg"]
    with pytest.warns(UserWarning, match=r"^ZSL without 2 unreadable images: broken\.jpg, gone\.jpg$"):
        score_images([linear()], Protocol("ZSL", NAMES, batches), **HOW)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_on_stderr_if_it_is_wanted(capsys, shown):
    score_images([linear()], Protocol("ZSL", NAMES, loader()), **HOW | {"progress_bar": shown})
    out, err = capsys.readouterr()
    assert out == ""
    assert ("ZSL" in err) == shown


def test_the_summary_of_one_combination_is_found():
    found = evaluate([linear(name="a"), linear(-1.0, "b")], [Protocol("GZSL", NAMES, loader())], **HOW)
    assert find(found, "b", "GZSL") is found[1].metrics.summary
    assert math.isfinite(find(found, "b", "GZSL")["F1@3"])


def test_a_combination_that_was_not_evaluated_is_an_error():
    with pytest.raises(KeyError, match="RAM, ZSL"):
        find([], "RAM", "ZSL")


def result(method, protocol, f1, precision):
    return Result(method, protocol, Metrics({"F1@3": f1, "mAP": precision}, {}, {}), ())


def test_a_method_that_is_below_another_is_told_with_both_numbers():
    results = [
        result("CLIP", "ZSL", 60.0, 70.0), result("CLIP", "GZSL", 50.0, 60.0), result("RAM", "ZSL", 61.0, 69.94),
        result("RAM", "GZSL", 49.0, 60.0),
    ]  # fmt: skip
    assert behind(results, "RAM", "CLIP") == "RAM is below CLIP: ZSL mAP 69.9, not 70.0; GZSL F1@3 49.0, not 50.0"
    assert behind(results, "CLIP", "CLIP") == ""


def test_a_task_from_elsewhere_measures_what_it_wants_of_outputs_and_batches(monkeypatch):
    class Pixels:
        """The share of pixels that a method gets right."""

        def __init__(self, names):
            self.right = torch.zeros(len(names))
            self.pixels = 0

        def add(self, output, batch):
            self.right += (output.masks == batch.masks).sum((0, 2)).float()
            self.pixels += batch.masks.shape[0] * batch.masks.shape[2]

        def metrics(self):
            rates = (100 * self.right / self.pixels).numpy()
            return Metrics({"accuracy": float(rates.mean())}, {"accuracy": rates}, {"classes": len(rates)})

    monkeypatch.setitem(TASKS, "segmentation", Pixels)
    masks = torch.tensor([[[1, 0, 1, 1], [0, 0, 0, 1]], [[1, 1, 1, 1], [0, 0, 1, 1]]])  # (B, C, P)
    batches = Loader([SimpleNamespace(images=torch.zeros(2, 3, 2, 2), masks=masks)])
    method = Row("ones", lambda names: len(names), lambda *_: SimpleNamespace(masks=torch.ones_like(masks)))
    (only,) = evaluate([method], [Protocol("GZSL", NAMES[:2], batches, task="segmentation")], **HOW)
    assert only.metrics.summary == {"accuracy": 62.5}
    assert only.metrics.per_class["accuracy"].tolist() == [87.5, 37.5]
