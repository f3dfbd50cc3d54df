"""Which precisions are measured."""

import torch

from tools.benchmarking import precision
from tools.benchmarking.precision import FLOAT32, precisions


def test_those_that_make_a_difference_stand_behind_float32(monkeypatch):
    offered = {"fp16": None, "bf16": torch.bfloat16}
    monkeypatch.setattr(precision, "autocast_dtype", lambda name, device: offered[name])  # noqa: ARG005
    assert [one.name for one in precisions(torch.device("cpu"))] == ["off", "bf16"]
    offered["bf16"] = None
    assert precisions(torch.device("cpu")) == [FLOAT32]


def test_products_are_of_its_dtype():
    assert FLOAT32.products == torch.float32
    assert FLOAT32._replace(dtype=torch.bfloat16).products == torch.bfloat16
