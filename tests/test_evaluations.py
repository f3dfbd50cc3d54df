"""Whole evaluations by test.py of a finished training on a few small images."""

import hashlib
import importlib.metadata
import importlib.util
import json
import time
from pathlib import Path

import pytest
import torch

from datasets.records import DataError
from engine.checkpoint import load_checkpoint
from engine.results import read_scores
from trainings import files, newest, only_run, results

ROOT = Path(__file__).parent.parent
RESULTS = {"results.json", "results.csv", "per_class.csv", "log.jsonl"}

pytestmark = pytest.mark.usefixtures("own_random_state")


def test_the_newest_run_is_tested(trained, test_script, capsys):
    test_script.test(trained.config())
    assert set(files(newest(trained.run))) == RESULTS
    out = capsys.readouterr().out
    assert f"results: {newest(trained.run)}" in out
    assert "few, test images" in out


@pytest.mark.parametrize(("labels", "protocols"), [("dog|sun", {"ZSL", "GZSL"}), ("cat|dog", {"GZSL"})])
@pytest.mark.filterwarnings("ignore:the training images are not", "ignore:MODEL")
def test_a_checkpoint_is_tested_on_any_labels_without_its_training_list(
    trained, test_script, tmp_path, labels, protocols
):
    (tmp_path / "mine.csv").write_text(f"image,labels\nimages/test0.png,{labels}\nimages/test1.jpg,dog\n")
    keys = ("DATASETS.TRAIN", "gone.json", "DATASETS.VAL", "", "DATASETS.TEST", str(tmp_path / "mine.csv"))
    test_script.test(trained.config(*keys))
    found = results(newest(trained.run))["RAM"]
    assert found.keys() == protocols
    assert found["GZSL"]["classes"] == 2


def test_no_test_overwrites_another(trained, test_script):
    for _ in range(2):
        test_script.test(trained.config())
    folders = list((trained.run / "test").iterdir())
    assert [set(files(folder)) for folder in folders] == [RESULTS, RESULTS]


def test_results_say_where_they_come_from(trained, test_script, finished):
    test_script.test(trained.config("DATALOADER.NUM_WORKERS", "0"))
    about = json.loads((newest(trained.run) / "results.json").read_text())["about"]
    checkpoint = (trained.run / "checkpoint.pth").read_bytes()
    assert about["checkpoint"] == {
        "run": trained.run.name, "file": "checkpoint.pth", "sha256": hashlib.sha256(checkpoint).hexdigest(),
        "method": "ram", "epoch": 3, "batch": 0, "step": 6,
    }  # fmt: skip
    assert about["labels"] == {"seen": 4, "unseen": 3}
    assert {name: (it["images"], it["labels"]) for name, it in about["lists"].items()} == {
        "ZSL": (4, 3),
        "GZSL": (7, 7),
    }
    assert len({it["fingerprint"] for it in about["lists"].values()}) == 2
    assert about["config"]["SOLVER.IMS_PER_BATCH"] == 2
    assert about["environment"]["torch"] == importlib.metadata.version("torch")
    assert time.strptime(about["date"], "%Y-%m-%dT%H:%M:%S%z")
    before = json.loads((finished.run / "val" / "epoch-2" / "results.json").read_text())["about"]
    assert before["checkpoint"] == {"run": trained.run.name, "epoch": 2, "step": 6}


def test_a_checkpoint_can_be_named(trained, test_script):
    (trained.run / "checkpoint.pth").rename(trained.runs / "mine.pth")
    test_script.test(trained.config("TEST.WEIGHT", str(trained.runs / "mine.pth")))
    assert set(files(newest(trained.runs))) == RESULTS


def test_validation_gives_again_what_the_training_found(trained, test_script):
    expected = results(trained.run / "val" / "epoch-2")
    test_script.test(trained.config("TEST.SPLIT", "val"))
    assert results(newest(trained.run, "val")) == expected


def test_scores_of_every_row_in_bf16_are_near_those_in_float32(trained, test_script, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    found = {}
    for precision in ("off", "bf16"):
        test_script.test(trained.config("TEST.AMP", precision, "TEST.SAVE_SCORES", "True"))
        found[precision] = {path.name: read_scores(path).scores for path in newest(trained.run).glob("*.npz")}
    assert len(found["off"]) == 6
    for name, exact in found["off"].items():
        assert found["bf16"][name].dtype == exact.dtype
        assert 0 < abs(found["bf16"][name] - exact).max() < 0.05


def test_there_is_a_row_for_each_method_and_protocol(finished):
    found = results(finished.run / "val" / "epoch-2")
    assert {name: set(row) for name, row in found.items()} == {
        name: {"ZSL", "GZSL"} for name in ("zero-shot CLIP", "RAM", "RAM (EMA)")
    }


def test_without_an_average_there_is_no_row_of_it(benchmark, train_script, test_script):
    cfg = benchmark.config("MODEL.USE_EMA", "False", "SOLVER.MAX_EPOCHS", "1")
    train_script.train(cfg, None)
    test_script.test(cfg)
    assert results(newest(only_run(benchmark))).keys() == {"zero-shot CLIP", "RAM"}
    assert load_checkpoint(only_run(benchmark) / "checkpoint.pth")["ema"] is None


def test_only_what_is_asked_for_is_evaluated(benchmark, train_script, test_script):
    cfg = benchmark.config("SOLVER.MAX_EPOCHS", "1", "TEST.PROTOCOLS", "ZSL")
    train_script.train(cfg, None)
    test_script.test(cfg)
    for folder in (only_run(benchmark) / "val" / "epoch-1", newest(only_run(benchmark))):
        assert {protocol for row in results(folder).values() for protocol in row} == {"ZSL"}


@pytest.mark.filterwarnings("ignore:CLIP's positional embeddings are interpolated")
def test_a_matcher_that_cannot_answer_all_labels_is_tested_on_those_it_can(benchmark, train_script, test_script):
    regions = ("INPUT.SIZE_TRAIN", "(16, 16)", "INPUT.SIZE_TEST", "(16, 16)")  # four, for 4 seen and 3 unseen labels
    cfg = benchmark.config("MODEL.MATCHER", "bipartite", "SOLVER.MAX_EPOCHS", "1", "TEST.PROTOCOLS", "ZSL", *regions)
    train_script.train(cfg, None)
    test_script.test(cfg)
    assert results(newest(only_run(benchmark)))["RAM (EMA)"].keys() == {"ZSL"}


def test_protocols_that_there_are_not_are_refused(trained, test_script):
    with pytest.raises(DataError, match=r"TEST\.PROTOCOLS names 'ZLS'; there are ZSL, GZSL"):
        test_script.test(trained.config("TEST.PROTOCOLS", "ZLS"))


def test_saved_scores_give_exactly_the_numbers_of_the_results(trained, test_script):
    test_script.test(trained.config("TEST.SAVE_SCORES", "True"))
    spec = importlib.util.spec_from_file_location("evaluate_scores_script", ROOT / "tools" / "evaluate_scores.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found, folder = results(newest(trained.run)), newest(trained.run)
    names = {"zero-shot CLIP": "zero-shot-CLIP", "RAM": "RAM", "RAM (EMA)": "RAM-EMA"}
    expected = {f"scores-{file}-{protocol}.npz" for file in names.values() for protocol in ("ZSL", "GZSL")}
    assert files(folder).keys() == RESULTS | expected
    for method, file in names.items():
        for protocol in ("ZSL", "GZSL"):
            metrics = tool.evaluate(str(folder / f"scores-{file}-{protocol}.npz"), None).metrics
            assert metrics.counts | metrics.summary == found[method][protocol]


def test_raw_and_averaged_weights_score_differently(trained, test_script):
    test_script.test(trained.config("TEST.SAVE_SCORES", "True"))
    raw, averaged = (read_scores(newest(trained.run) / f"scores-{n}-GZSL.npz").scores for n in ("RAM", "RAM-EMA"))
    assert abs(raw - averaged).max() > 1e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [("MODEL.OT_REG", "0.2"), ("INPUT.PIXEL_MEAN", "(0.4, 0.5, 0.5)"), ("MODEL.CONTEXT.COUNT", "7")],
)
def test_a_test_with_another_model_warns_of_it(trained, test_script, key, value):
    with pytest.warns(UserWarning, match=f"^{key} was .* in training and is "):
        test_script.test(trained.config(key, value))
