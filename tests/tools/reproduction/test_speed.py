"""Speed and memory of a method."""

import json

import pytest
import torch

from configs import load_config
from tools.reproduction import speed
from tools.reproduction.speed import FORMAT, KINDS, SpeedError, collect, machine, main, measure


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "STEPS", 1)


@pytest.mark.usefixtures("few")
def test_the_program_writes_repeated_measurements(tmp_path):
    file = tmp_path / "speed.json"
    assert main(["--config_file", "configs/tiny.yml", "SOLVER.IMS_PER_BATCH", "2", "--out", str(file)]) == 0
    content = json.loads(file.read_text())
    assert tuple(content["values"]) == KINDS
    assert all(len(values) == 2 and min(values) > 0 for values in content["values"].values())
    assert content["machine"].endswith(" threads")


@pytest.mark.usefixtures("few")
def test_averages_are_part_of_a_training_where_they_are_configured():
    overrides = ["SOLVER.IMS_PER_BATCH", "2", "MODEL.USE_EMA", "False"]
    assert measure(load_config("configs/tiny.yml", overrides)).keys() == set(KINDS)


def test_a_benchmark_of_unknown_labels_is_refused():
    with pytest.raises(SpeedError, match="mine has an unknown number of labels"):
        measure(load_config("configs/tiny.yml", ["DATASETS.NAMES", "mine"]))


def test_a_gpu_is_named_by_itself():
    facts = {"gpus": ["a GPU", "another"], "cpu": "a processor", "threads": 3}
    assert (machine(facts, "cuda"), machine(facts, "cpu")) == ("a GPU", "a processor, 3 threads")


def test_measurements_are_found_by_recipe(tmp_path):
    content = {"format": FORMAT, "recipe": "abc", "machine": "m", "values": dict.fromkeys(KINDS, [1, 2])}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "b.json").write_text(json.dumps({**content, "machine": "later"}))
    (tmp_path / "c.json").write_text("[]")
    (found,) = collect([tmp_path]).values()
    assert (found.machine, found.values["test GB"]) == ("m", (1.0, 2.0))


@pytest.mark.parametrize("text", ["{", json.dumps({"format": FORMAT}), json.dumps({"format": FORMAT, "values": {}})])
def test_damaged_files_are_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SpeedError, match="a.json holds no measurements"):
        collect([tmp_path])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("few")
def test_the_memory_of_a_gpu_is_measured():
    overrides = ["SOLVER.IMS_PER_BATCH", "2", "DEVICE", "cuda"]
    found = measure(load_config("configs/tiny.yml", overrides))
    assert 0 < found["test GB"][0] < found["train GB"][0]
