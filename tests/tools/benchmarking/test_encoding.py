"""Encoding new labels."""

import torch

from tools.benchmarking import encoding
from tools.benchmarking.encoding import measure, new_labels, plain_labels
from tools.benchmarking.models import build


def test_encoding_stands_beside_the_reference(tiny, quick, by_quantity, monkeypatch):
    monkeypatch.setattr(encoding, "BASE", tiny)
    monkeypatch.setattr(encoding, "LABELS", {True: 20})
    monkeypatch.setattr(encoding, "FEW", {True: (2, 4)})
    found = by_quantity(measure(quick))
    assert found["time"].case == "encoding 20 labels"
    assert "plain reference, from 2 and 4 labels" in found


def test_every_call_encodes_another_list(tiny, quick):
    run = new_labels(build(tiny, quick), 5)
    first, second = run(), run()
    assert first.names != second.names
    assert sorted(first.names) == sorted(second.names)


def test_the_reference_encodes_the_same(tiny, quick):
    built = build(tiny, quick)
    torch.testing.assert_close(plain_labels(built, 9)(), new_labels(built, 9)().features, rtol=1e-4, atol=1e-5)
