import pytest
import torch

import parallel
from tests.processes import launched

SHARES = (slice(0, 3), slice(3, 4), slice(4, 4))  # of unlike sizes, one empty
VALUES = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COLUMNS = torch.arange(1.0, 6.0, dtype=torch.float64)
WHOLE = {
    "summed": lambda x: x.sin().sum() ** 2,
    "mean": lambda x: x.sin().mean() ** 2,
    "logsumexp": lambda x: (20 * x).logsumexp((0, 1)) ** 2,
    "logsumexp of columns": lambda x: ((20 * x).logsumexp(0) * COLUMNS).sum(),
}
SHARED = {
    "summed": lambda x: parallel.summed(x.sin().sum()) ** 2,
    "mean": lambda x: parallel.mean(x.sin()) ** 2,
    "logsumexp": lambda x: parallel.logsumexp(20 * x) ** 2,
    "logsumexp of columns": lambda x: (parallel.logsumexp(20 * x, 0) * COLUMNS).sum(),
}


def gradient(function, values):
    values = values.clone().requires_grad_()
    result = function(values)
    result.backward()
    return result.detach(), values.grad


@pytest.fixture(scope="module")
def reduced():
    """What three processes make of their shares."""

    def work(rank):
        share = VALUES[SHARES[rank]]
        with parallel.joined():
            parallel.connect(torch.device("cpu"))
            outside = parallel.summed(torch.tensor(1.0)), parallel.reductions.spans_processes()
            with parallel.as_one():
                answers = {name: gradient(function, share) for name, function in SHARED.items()}
                rest = (
                    parallel.least(share), parallel.anywhere(share > 1), parallel.anywhere(share > 100),
                    parallel.rows_of_all(share), parallel.rows_of_all(share[:, 0] > 0),
                )  # fmt: skip
                with parallel.as_one():
                    pass
                return answers, rest, outside, parallel.reductions.spans_processes()

    return launched(3, work)


@pytest.mark.parametrize("name", SHARED)
def test_a_reduction_is_that_of_the_whole(reduced, name):
    expected, _ = gradient(WHOLE[name], VALUES)
    for answers, *_ in reduced:
        torch.testing.assert_close(answers[name][0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SHARED)
def test_every_process_has_the_same_number_to_the_bit(reduced, name):
    assert len({answers[name][0].item() for answers, *_ in reduced}) == 1


@pytest.mark.parametrize("name", SHARED)
def test_the_gradient_is_that_of_the_losses_of_all_processes(reduced, name):
    _, expected = gradient(WHOLE[name], VALUES)
    shares = torch.cat([answers[name][1] for answers, *_ in reduced])
    torch.testing.assert_close(shares, 3 * expected, rtol=1e-12, atol=1e-15)


def test_the_least_is_of_all_shares(reduced):
    assert all(torch.equal(least, VALUES.min()) for _, (least, *_), *_ in reduced)


def test_anywhere_looks_at_all_shares(reduced):
    assert (VALUES > 1).any()  # else the test says nothing
    assert [(bool(some), bool(none)) for _, (_, some, none, *_), *_ in reduced] == [(True, False)] * 3


def test_every_process_has_the_rows_of_all_in_their_order(reduced):
    for _, (*_, rows, signs), *_ in reduced:
        assert torch.equal(rows, VALUES)
        assert torch.equal(signs, VALUES[:, 0] > 0)


def test_outside_of_a_step_nothing_is_exchanged(reduced):
    assert [(value.item(), spans) for *_, (value, spans), _ in reduced] == [(1.0, False)] * 3


def test_the_end_of_a_step_within_a_step_does_not_end_it(reduced):
    assert [spans for *_, spans in reduced] == [True] * 3


@pytest.mark.parametrize("name", SHARED)
def test_one_process_reduces_by_itself(name):
    with parallel.as_one():
        value, grad = gradient(SHARED[name], VALUES)
    expected, expected_grad = gradient(WHOLE[name], VALUES)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-15)
    assert torch.equal(parallel.least(VALUES), VALUES.min())
    assert parallel.anywhere(VALUES > 1)
    assert torch.equal(parallel.rows_of_all(VALUES), VALUES)
