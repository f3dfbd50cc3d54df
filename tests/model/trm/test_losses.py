"""Every loss against NumPy in float64, and those that the authors' earlier code has against its numbers."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import parallel
from loss.summed_asl_loss import summed_asl_loss
from model.trm.losses import classification_loss, contrastive_loss, distillation_loss
from tests.processes import launched

RELEASE = np.load(Path(__file__).parents[2] / "data" / "release_trm_parts.npz")
FOCUSING = {"fork": {"gamma_pos": 1.0, "gamma_neg": 2.0, "clip": 0.05},
            "bce": {"gamma_pos": 0.0, "gamma_neg": 0.0, "clip": 0.0}}  # fmt: skip
LIMIT = 1e-4


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def targets_of(key):
    """1, 0 and -1 (not known) from the paper's +1, -1 and 0."""
    return torch.from_numpy(np.select([RELEASE[key] == 1, RELEASE[key] == -1], [1, 0], -1))


def error(found, key, scale=1.0):
    expected = scale * released(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


def unit(*shape, seed=0):
    return torch.nn.functional.normalize(drawn(*shape, seed=seed), dim=-1)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def asl(kind="fork"):
    return partial(summed_asl_loss, smallest=1e-8, **FOCUSING[kind])


@pytest.mark.parametrize("kind", FOCUSING)
def test_the_classification_loss_is_that_of_the_authors_earlier_code(kind):
    logits = released("asl/logits").requires_grad_()
    loss = classification_loss(logits, targets_of("asl/target"), summed_loss=asl(kind))
    loss.backward()
    assert error(loss, f"asl/{kind}/loss") < LIMIT
    assert error(logits.grad, f"asl/{kind}/grad") < LIMIT


def test_the_classification_loss_is_equation_14_over_the_number_of_images():
    logits, targets = 3 * drawn(4, 5), torch.randint(-1, 2, (4, 5), generator=torch.Generator().manual_seed(1))
    total = 0.0
    for z, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + np.exp(-z))
        shifted = max(p - 0.05, 0)
        total -= {1: (1 - p) * np.log(p), 0: shifted**2 * np.log(1 - shifted), -1: 0}[y]
    found = classification_loss(logits, targets, summed_loss=asl())
    assert found.item() == pytest.approx(total / 4, rel=1e-5)


def test_the_sum_of_the_distillation_is_that_of_the_authors_earlier_code_and_the_mean_a_sixth_of_it():
    student, teacher = released("kd/student").requires_grad_(), released("kd/teacher").requires_grad_()
    for reduction, share in (("sum", 1), ("mean", 1 / 6)):
        student.grad = None
        loss = distillation_loss(student, teacher, temperature=4.0, reduction=reduction)
        loss.backward()
        assert error(loss, "kd/loss_sum", share) < LIMIT
        assert error(student.grad, "kd/grad_sum", share) < LIMIT
    assert teacher.grad is None


def test_the_distillation_is_equation_6():
    student, teacher = drawn(3, 5), drawn(3, 5, seed=1)
    of = [np.exp(z.double().numpy() / 2) for z in (student, teacher)]
    q, r = (p / p.sum(1, keepdims=True) for p in of)
    found = distillation_loss(student, teacher, temperature=2.0, reduction="mean")
    assert found.item() == pytest.approx(4 / 3 * (r * np.log(r / q)).sum(), rel=1e-5)


def contrast_by_hand(anchors, candidates, labels, temperature):
    """Eq. (13), label by label."""
    similarities = np.exp(anchors.double().numpy() @ candidates.double().numpy().T / temperature)
    of_labels = []
    for label, row in enumerate(similarities):
        own, others = row[labels.numpy() == label], row[labels.numpy() != label]
        if len(own) and len(others):
            of_labels.append(np.mean([-np.log(q / (q + others.sum())) for q in own]))
    return np.mean(of_labels)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_contrastive_loss_is_equation_13(temperature):
    anchors, candidates, labels = unit(5, 8), unit(9, 8, seed=1), torch.tensor([0, 0, 1, 3, 3, 3, 0, 1, 3])
    found = contrastive_loss(anchors, candidates, labels, temperature=temperature)
    assert found.item() == pytest.approx(contrast_by_hand(anchors, candidates, labels, temperature), rel=1e-5)


def test_the_contrastive_loss_is_finite_at_a_low_temperature():
    anchors = unit(3, 8).requires_grad_()
    contrastive_loss(anchors, unit(6, 8, seed=1), torch.tensor([0, 1, 2] * 2), temperature=1e-3).backward()
    assert anchors.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[], [2, 2]], ids=["no candidates", "candidates of one label"])
def test_the_contrastive_loss_is_0_where_there_is_nothing_to_compare(labels):
    anchors = unit(3, 8).requires_grad_()
    loss = contrastive_loss(anchors, unit(len(labels), 8), torch.tensor(labels).long(), temperature=0.07)
    loss.backward()
    assert loss.item() == 0
    assert not anchors.grad.any()


LOSSES = {
    "distillation": lambda rows: distillation_loss(
        rows["student"], rows["teacher"], temperature=4.0, reduction="mean"
    ),
    "classification": lambda rows: classification_loss(rows["student"], rows["targets"], summed_loss=asl()),
    "contrast": lambda rows: contrastive_loss(
        unit(5, 7), rows["candidates"], rows["labels"], temperature=0.07
    ),
}  # fmt: skip


def inputs():
    labels = torch.tensor([0, 1, 1, 4, 0, 4])
    return {"student": drawn(6, 5), "teacher": drawn(6, 5, seed=1), "targets": (drawn(6, 5, seed=2) > 0).long(),
            "candidates": unit(6, 7, seed=3), "labels": labels}  # fmt: skip


@pytest.fixture(scope="module")
def shared():
    """Value and gradient of each loss in two processes, of which the first has a third of the rows."""

    def work(rank):
        with parallel.joined():
            parallel.connect(torch.device("cpu"))
            with parallel.as_one():
                return {name: values(loss, lambda whole: (whole[:2], whole[2:])[rank]) for name, loss in LOSSES.items()}

    return launched(2, work)


def values(loss, cut):
    rows = {name: cut(whole) for name, whole in inputs().items()}
    leaves = {name: rows[name].clone().requires_grad_() for name in ("student", "candidates")}
    found = loss(rows | leaves)
    found.backward()
    return found.item(), {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_that_of_the_whole_batch_and_so_is_its_gradient(shared, name):
    expected, grads = values(LOSSES[name], lambda whole: whole)
    assert [one[name][0] for one in shared] == pytest.approx([expected] * 2, rel=1e-6)
    for leaf, grad in grads.items():
        mean = torch.cat([one[name][1][leaf] for one in shared]) / 2
        torch.testing.assert_close(mean, grad, rtol=1e-5, atol=1e-6 * grad.abs().max().item())
