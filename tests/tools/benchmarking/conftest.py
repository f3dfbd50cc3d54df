"""What tests of benchmarks share: a tiny model, and as few rounds as there may be."""

import pytest
import torch

from tools.benchmarking import comparing, measuring, models
from tools.benchmarking.measuring import Setting
from tools.benchmarking.models import Model
from tools.benchmarking.precision import FLOAT32


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Small matrices, and one call a round."""
    monkeypatch.setattr(comparing, "SIDE", 32)
    monkeypatch.setattr(measuring, "SHORTEST", 0.0)


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Whatever else the machine computes in."""
    monkeypatch.setattr(comparing, "precisions", lambda _: [FLOAT32])


@pytest.fixture(autouse=True)
def _forgetful():
    """Models that a test makes are not kept for the next one."""
    yield
    models.build.cache_clear()


@pytest.fixture
def tiny():
    return Model("tiny", "tiny.yml", (), 2)


@pytest.fixture
def quick():
    return Setting(torch.device("cpu"), quick=True)


@pytest.fixture
def by_quantity():
    """Measurements of one case, by what was measured."""

    def sort(measurements):
        made = list(measurements)
        assert len({one.case for one in made}) == 1
        assert all(len(one.values) in (1, 2) for one in made)
        return {one.quantity: one for one in made}

    return sort
