"""The objective of pre-training."""

import numpy as np
import pytest
import torch

from tools.pretraining.objective import contrastive_loss


def test_loss_is_the_mean_cross_entropy_of_both_directions():
    logits = np.random.default_rng(0).normal(size=(3, 4))
    named = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]])  # label 1 and 3 are named nowhere
    rows, columns = [], []
    for i in range(3):
        log_p = logits[i] - np.log(np.exp(logits[i]).sum())
        rows.append(-np.mean([log_p[j] for j in range(4) if named[i, j]]))
    for j in (0, 2):
        log_p = logits[:, j] - np.log(np.exp(logits[:, j]).sum())
        columns.append(-np.mean([log_p[i] for i in range(3) if named[i, j]]))
    found = contrastive_loss(torch.from_numpy(logits), torch.from_numpy(named).double())
    assert found.item() == pytest.approx((np.mean(rows) + np.mean(columns)) / 2)
