"""Calls on random batches."""

import pytest
import torch

from configs import load_config
from model import build_method, load_towers
from tools.benchmarking.rounds import averages, random_targets, test_round, train_round

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cfg():
    return load_config("configs/tiny.yml", ["SOLVER.IMS_PER_BATCH", "2", "MODEL.EMA_DECAY", "auto"])


@pytest.fixture
def method(cfg):
    with torch.random.fork_rng(devices=[]):
        return build_method(cfg, load_towers(cfg))


def test_a_round_trains_as_many_steps_as_it_is_told(cfg, method):
    train_round(method, cfg, ("a", "b"), CPU, steps=3)()
    assert method.state_dict()["adapter.selections.2.bn1x1.num_batches_tracked"] == 3


def test_a_round_tests_in_evaluation_mode_and_changes_nothing(cfg, method):
    before = {name: value.clone() for name, value in method.state_dict().items()}
    test_round(method, cfg, ("a", "b"), CPU, steps=2)()
    assert not method.training
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_an_average_spans_a_tenth_of_the_steps_where_it_is_to_be_chosen(cfg, method):
    assert averages(method, cfg, 100)._decay == pytest.approx(0.9)


def test_every_image_has_a_label():
    targets = random_targets(50, 3)
    assert targets[:, 0].eq(1).all()
    assert set(targets.unique().tolist()) == {0.0, 1.0}
