"""Thresholds and pseudo-labels, Eq. (9)-(12), against the formulas entry by entry."""

import numpy as np
import pytest
import torch

import parallel
from model.trm.pseudo_labels import Thresholds, agreed, completed
from tests.processes import launched

ALL = torch.ones(4, dtype=torch.bool)


def batch(seed):
    """Similarities and targets of 1, 0 and -1, six images and four labels; the last label is never known."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(-1, 2, (6, 4), generator=generator)
    targets[:, 3] = -1
    return torch.rand(6, 4, generator=generator), targets.float()


def moved_by_hand(batches, momentum, usable=(True,) * 4):
    """theta_negative and theta_positive of each label; None where nothing has said anything."""
    thresholds = np.full((2, 4), None)
    for similarity, targets in batches:
        for label in range(4):
            for value in (0, 1):
                said = [s for s, y in zip(similarity[:, label].tolist(), targets[:, label].tolist(), strict=True)
                        if y == value]  # fmt: skip
                if said and usable[label]:
                    old = thresholds[value, label]
                    mean = np.mean(said)
                    thresholds[value, label] = mean if old is None else momentum * old + (1 - momentum) * mean
    return thresholds


def trained(batches, momentum=0.9, usable=ALL):
    thresholds = Thresholds(labels=4, momentum=momentum)
    for similarity, targets in batches:
        thresholds.update(similarity, targets, usable)
    return thresholds


def assert_are(thresholds, expected):
    for value in (0, 1):
        for label in range(4):
            assert thresholds.defined[value, label].item() == (expected[value, label] is not None)
            if expected[value, label] is not None:
                assert thresholds.values[value, label].item() == pytest.approx(expected[value, label], rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("usable", [(True,) * 4, (True, False, True, True)])
def test_thresholds_are_moving_means_of_what_is_known(count, usable):
    batches = [batch(seed) for seed in range(count)]
    assert_are(trained(batches, usable=torch.tensor(usable)), moved_by_hand(batches, 0.9, usable))


def test_a_batch_that_says_nothing_of_a_label_leaves_its_thresholds():
    similarity, _ = batch(0)
    thresholds = trained([batch(0)])
    before = thresholds.values.clone()
    thresholds.update(similarity + 1, torch.full((6, 4), -1.0), ALL)
    assert torch.equal(thresholds.values, before)


def test_processes_move_thresholds_as_one_does():
    batches = [batch(seed) for seed in range(3)]

    def work(rank):
        with parallel.joined():
            parallel.connect(torch.device("cpu"))
            with parallel.as_one():
                return trained(
                    [[whole[:2] if rank == 0 else whole[2:] for whole in one] for one in batches]
                ).state_dict()

    first, second = launched(2, work)
    alone = trained(batches).state_dict()
    assert torch.equal(first["values"], second["values"])
    torch.testing.assert_close(first["values"], alone["values"])
    assert torch.equal(first["defined"], alone["defined"])


def test_labels_are_judged_by_both_thresholds_where_these_are_in_order():
    thresholds = Thresholds(labels=4, momentum=0.9)
    thresholds.values.copy_(torch.tensor([[0.2, 0.6, 0.2, 0.2], [0.5, 0.6, 0.1, 0.5]]))
    thresholds.defined.copy_(torch.tensor([[True, True, True, True], [True, True, True, False]]))
    assert thresholds.ordered.tolist() == [True, False, False, False]  # equal, swapped, not defined
    similarity = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.9])[:, None].expand(-1, 4)
    expected = torch.full((5, 4), -1)
    expected[:, 0] = torch.tensor([0, 0, -1, 1, 1])
    assert torch.equal(thresholds.judge(similarity), expected)


def test_a_pseudo_label_is_what_all_agree_on():
    first, second = torch.tensor([[1, 1, 1, 0, 0, 0, -1, -1, -1]]), torch.tensor([[1, 0, -1] * 3])
    assert agreed([first, second]).tolist() == [[1, -1, -1, -1, 0, -1, -1, -1, -1]]
    assert torch.equal(agreed([second]), second)


@pytest.mark.parametrize(("unknown", "expected"), [
    ("ignored", [1, 0, 1, 0, -1, -1]), ("absent", [1, 0, 1, 0, -1, 0]), ("always-absent", [1, 0, 1, 0, 0, 0]),
])  # fmt: skip
def test_unknown_labels_become_pseudo_labels_or_what_is_asked_for_and_known_ones_stay(unknown, expected):
    targets = torch.tensor([[1.0, 0, -1, -1, -1, -1]])
    pseudo, judged = torch.tensor([[0, 1, 1, 0, -1, -1]]), torch.tensor([True] * 5 + [False])
    found = completed(targets, pseudo, judged, unknown=unknown)
    assert found.tolist() == [expected]
    assert found.dtype == targets.dtype
