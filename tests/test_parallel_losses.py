"""What couples the images of a batch, where several processes have a share of them each."""

from functools import partial

import pytest
import torch

import parallel
from loss.asl_loss import asl_loss, plain_asl_loss
from loss.build import LOSSES
from loss.summed_asl_loss import summed_asl_loss
from model.kcot import transfer_knowledge
from model.ot_solver import sinkhorn
from tests.processes import launched, random, share_of

CPU = torch.device("cpu")
FOCUSING = {"gamma_neg": 2.0, "gamma_pos": 1.0, "clip": 0.05}
EVERY_LOSS = LOSSES | {
    "ASL": partial(asl_loss, **FOCUSING), "ASL-PLAIN": partial(plain_asl_loss, **FOCUSING),
    "SUMMED-ASL": partial(summed_asl_loss, smallest=1e-8, **FOCUSING),
}  # fmt: skip
LOGITS = random(6, 9)
TARGETS = (random(6, 9, seed=1) > 0.6).float()
TARGETS[0] = 0  # an image without labels, alone in its share of six
THINNED = TARGETS.masked_fill(random(6, 9, seed=2) > 0, -1)
THINNED[5] = -1  # nothing is known of the last one


def gradient(loss, logits, targets):
    logits = (3 * logits).requires_grad_()
    value = loss(logits, targets)
    value.backward()
    return value.item(), logits.grad


@pytest.fixture(scope="module", params=[2, 4])
def losses(request):
    """Value and gradient of each loss in so many processes."""

    def work(rank):
        logits, *targets = (share_of(whole, rank, request.param) for whole in (LOGITS, TARGETS, THINNED))
        with parallel.joined():
            parallel.connect(CPU)
            with parallel.as_one():
                return {name: [gradient(loss, logits, one) for one in targets] for name, loss in EVERY_LOSS.items()}

    return launched(request.param, work)


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize(("which", "targets"), [(0, TARGETS), (1, THINNED)], ids=["all known", "half known"])
def test_a_loss_is_that_of_the_whole_batch_and_so_is_its_gradient(losses, name, which, targets):
    value, grad = gradient(EVERY_LOSS[name], LOGITS, targets)
    assert [one[name][which][0] for one in losses] == pytest.approx([value] * len(losses), rel=1e-6)
    mean = torch.cat([one[name][which][1] for one in losses]) / len(losses)
    torch.testing.assert_close(mean, grad, rtol=1e-5, atol=1e-6 * grad.abs().max().item())


def test_absent_labels_take_the_smallest_assignment_of_all_processes():
    cost, assignment = random(4, 3, 5), random(4, 3, 5, seed=1).softmax(1)
    targets = (random(4, 5, seed=2) > 0).float()

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            with parallel.as_one():
                return transfer_knowledge(*(share_of(whole, rank, 2) for whole in (cost, assignment, targets)), 0.1)

    assert torch.equal(torch.cat(launched(2, work)), transfer_knowledge(cost, assignment, targets, 0.1))


def test_images_that_wait_for_each_other_wait_for_those_of_other_processes():
    cost = torch.cat([0.01 * random(2, 6, 4).abs(), random(2, 6, 4, seed=1).abs()])  # the first converge sooner
    mu, nu = torch.full((4, 6), 1 / 6), torch.full((4, 4), 1 / 4)
    solve = partial(sinkhorn, reg=0.1, tol=1e-6, stop="batch")

    def work(rank):
        with parallel.joined():
            parallel.connect(CPU)
            with parallel.as_one():
                return solve(*(share_of(whole, rank, 2) for whole in (cost, mu, nu)))

    expected, alone = solve(cost, mu, nu), solve(cost[:2], mu[:2], nu[:2])
    assert alone.iterations.max() < expected.iterations.min()  # else the test says nothing
    plans, _, iterations = (torch.cat(parts) for parts in zip(*launched(2, work), strict=True))
    assert torch.equal(iterations, expected.iterations)
    torch.testing.assert_close(plans, expected.plan)
