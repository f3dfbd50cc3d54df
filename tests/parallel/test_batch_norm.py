import pytest
import torch
from torch import nn

import parallel
from parallel import BatchNorm2d
from tests.processes import launched

SHARES = (slice(0, 4), slice(4, 5))
IMAGES = 3 + 2 * torch.randn(5, 6, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
FAR = 1000 + torch.randn(5, 6, 4, 3, generator=torch.Generator().manual_seed(1))  # mean far from 0, float32
WEIGHTS = torch.randn(5, 6, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def made(kind, dtype=torch.float64):
    norm = kind(6).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    return norm


def passed(norm, images, weights):
    """Output, gradients and running statistics of two steps."""
    images = images.clone().requires_grad_()
    norm(images.detach() * 2)
    output = norm(images)
    (output * weights).sum().backward()
    return {
        "output": output.detach(), "input": images.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
        "mean": norm.running_mean, "variance": norm.running_var, "steps": norm.num_batches_tracked,
    }  # fmt: skip


@pytest.fixture(scope="module")
def shares():
    def work(rank):
        share = SHARES[rank]
        with parallel.joined():
            parallel.connect(torch.device("cpu"))
            with parallel.as_one():
                far = made(BatchNorm2d, torch.float32)(FAR[share]).detach()
                half = made(BatchNorm2d, torch.float32)(FAR[share].bfloat16()).dtype
                norm = passed(made(BatchNorm2d), IMAGES[share], WEIGHTS[share])
                rested = made(BatchNorm2d).eval()(IMAGES[share]).detach()
        return norm, far, half, rested

    return launched(2, work)


@pytest.fixture(scope="module")
def whole():
    return passed(made(nn.BatchNorm2d), IMAGES, WEIGHTS)


@pytest.mark.parametrize("name", ["output", "input"])
def test_shares_are_normalised_as_the_whole_batch(shares, whole, name):
    torch.testing.assert_close(torch.cat([norm[name] for norm, *_ in shares]), whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_gradients_of_the_scale_add_up_to_those_of_the_whole_batch(shares, whole, name):
    torch.testing.assert_close(sum(norm[name] for norm, *_ in shares), whole[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "variance", "steps"])
def test_running_statistics_are_those_of_the_whole_batch(shares, whole, name):
    for norm, *_ in shares:
        torch.testing.assert_close(norm[name], whole[name], rtol=1e-6, atol=1e-6)


def test_a_mean_far_from_zero_costs_no_digits(shares):
    exact = made(nn.BatchNorm2d)(FAR.double()).detach()
    torch.testing.assert_close(torch.cat([far for _, far, *_ in shares]).double(), exact, rtol=0, atol=1e-3)


def test_the_dtype_is_that_of_the_input(shares):
    assert [half for *_, half, _ in shares] == [torch.bfloat16] * 2


def test_evaluation_exchanges_nothing(shares):
    expected = made(nn.BatchNorm2d).eval()(IMAGES).detach()
    assert torch.equal(torch.cat([rested for *_, rested in shares]), expected)


def test_one_process_computes_what_torch_does_to_the_bit():
    expected = passed(made(nn.BatchNorm2d), IMAGES, WEIGHTS)
    with parallel.as_one():
        ours = passed(made(BatchNorm2d), IMAGES, WEIGHTS)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
