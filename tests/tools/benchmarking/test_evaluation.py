"""Evaluations that are measured."""

import pytest
import torch

from datasets.build import build_test, evaluated
from tools.benchmarking import evaluation
from tools.benchmarking.evaluation import SHAPES, an_evaluation, measure, plain_evaluation
from tools.benchmarking.models import build
from tools.benchmarking.precision import FLOAT32
from tools.benchmarking.rounds import averages


@pytest.fixture(autouse=True)
def _tiny(tiny, monkeypatch):
    monkeypatch.setattr(evaluation, "BASE", tiny)


def test_both_lists_stand_beside_the_reference(quick, by_quantity):
    found = by_quantity(measure(quick))
    assert found["time"].case == "evaluation, 17 and 65 labels, batch 2"
    assert min(found["faster than plain reference"].values) > 0


def test_the_run_gives_the_metrics_of_both_weights_under_both_lists(quick):
    case = an_evaluation(quick._replace(quick=False), FLOAT32)
    assert [rival.name for rival in case.rivals] == ["plain reference", "plain reference, texts once"]
    results = case.run()
    assert [(one.method, one.protocol) for one in results] == [
        ("RAM", "ZSL"), ("RAM", "GZSL"), ("RAM (EMA)", "ZSL"), ("RAM (EMA)", "GZSL")
    ]  # fmt: skip
    assert {one.metrics.counts["images"] for one in results} == {4}


@pytest.mark.parametrize("once", [False, True])
def test_the_reference_scores_every_batch_by_both_weights(tiny, quick, once):
    built = build(tiny, quick, overrides=(*SHAPES, "DATASETS.SUBSET", "4", "MODEL.OT_STOP", "batch"))
    method, protocols = built.method.eval(), evaluated(built.cfg, build_test(built.cfg, "test"))
    ema = averages(method, built.cfg, 1)
    with torch.no_grad():
        method.visual_prompts.by_block["2"].mul_(30)  # now raw weights differ from the average
        scores = plain_evaluation(built, protocols, ema, once=once)()
        assert [len(one) for one in scores] == [4] * 4
        (batch,) = protocols[0].loader
        expected = method(batch.images, method.encode_labels(protocols[0].labels)).scores
    torch.testing.assert_close(scores[0], expected, rtol=1e-4, atol=1e-5)
    assert (scores[0] - scores[1]).abs().max() > 1e-6
