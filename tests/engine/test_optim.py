import math

import pytest
import torch
from torch.nn import Parameter

from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from engine.optim import OptimError, ParameterGroups, optimizers, rate_factor, set_rates

SETTINGS = {
    "lr": 5e-5,
    "adapter_factor": 0.1,
    "lr_sgd": 1e-3,
    "weight_decay": 1e-4,
    "weight_decay_sgd": 1e-4,
    "momentum": 0.9,
}
RELEASE = {"warmup": 3, "length": 60}


def groups(adapters=2, temperatures=2, prompts=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return ParameterGroups(
        *([Parameter(torch.randn(3, generator=generator)) for _ in range(n)] for n in (adapters, temperatures, prompts))
    )


def give_gradients(parameters, scale=1.0):
    for lists in parameters:
        for parameter in lists:
            parameter.grad = torch.full_like(parameter, scale)


def disabled():
    return torch.amp.GradScaler("cpu", enabled=False)


def test_adapters_learn_at_the_rates_of_the_release():
    rates = [5e-6 * rate_factor(e, start=0.1, **RELEASE) for e in range(1, 7)]
    # as tabled from the release, half a unit of the last digit and the table's own rounding apart
    assert rates == pytest.approx([2.0e-6, 3.5e-6, 4.97e-6, 4.95e-6, 4.92e-6, 4.88e-6], abs=0.0055e-6)


def test_prompts_learn_at_the_rates_of_the_release():
    rates = [1e-3 * rate_factor(e, start=0, **RELEASE) for e in range(1, 7)]
    assert rates == pytest.approx([3.3e-4, 6.7e-4, 9.9e-4, 9.9e-4, 9.8e-4, 9.8e-4], abs=0.05e-4)


@pytest.mark.parametrize(("progress", "factor"), [(15, (2 + math.sqrt(2)) / 4), (30, 0.5), (40, 0.25), (60, 0.0)])
def test_the_cosine_has_its_closed_form_values(progress, factor):
    assert rate_factor(progress, start=0.1, **RELEASE) == pytest.approx(factor, abs=1e-12)


def test_the_warm_up_is_linear_within_epochs_too():
    assert rate_factor(1.5, warmup=3, start=0.1, length=60) == pytest.approx(0.55)


def test_without_warm_up_the_rate_begins_at_the_base():
    assert rate_factor(0, warmup=0, start=0.1, length=60) == 1.0


def test_the_rate_does_not_rise_again_after_the_cosine():
    assert rate_factor(90, start=0.1, **RELEASE) == 0.0


def test_a_cosine_without_length_is_refused():
    with pytest.raises(OptimError, match="positive length in epochs, not 0"):
        rate_factor(1, warmup=0, start=0, length=0)


def test_each_group_has_its_own_base_rate():
    pair = optimizers(groups(), **SETTINGS)
    bases = {group["name"]: group["base_lr"] for group in pair.groups()}
    assert bases == pytest.approx({"adapters": 5e-6, "temperatures": 5e-5, "prompts": 1e-3})


def test_set_rates_gives_adamw_and_sgd_their_own_warm_up():
    pair = optimizers(groups(), **SETTINGS)
    set_rates(pair, 1, start=0.1, **RELEASE)
    assert pair.rates() == pytest.approx({"adapters": 2e-6, "temperatures": 2e-5, "prompts": 1e-3 / 3})


def test_rates_are_set_from_the_base_and_not_from_each_other():
    pair = optimizers(groups(), **SETTINGS)
    for progress in (1, 1, 5, 2):
        set_rates(pair, progress, start=0.1, **RELEASE)
    assert pair.rates() == pytest.approx({"adapters": 3.5e-6, "temperatures": 3.5e-5, "prompts": 2e-3 / 3})


def test_adapters_and_temperatures_step_as_adamw_in_closed_form():
    parameters = groups()
    before = [p.detach().clone() for p in (parameters.adapters[0], parameters.temperatures[0])]
    pair = optimizers(parameters, **SETTINGS)
    give_gradients(parameters)
    pair.step(disabled())
    for old, new, rate in zip(before, (parameters.adapters[0], parameters.temperatures[0]), (5e-6, 5e-5), strict=True):
        # the first step of Adam is the sign of the gradient, after the decoupled decay
        torch.testing.assert_close(new.detach(), old * (1 - rate * 1e-4) - rate, rtol=0, atol=1e-7)


def test_prompts_step_as_sgd_with_momentum_in_closed_form():
    parameters = groups()
    (prompt,) = parameters.prompts
    expected, velocity = prompt.detach().clone(), torch.zeros(3)
    pair = optimizers(parameters, **SETTINGS)
    for _ in range(3):
        give_gradients(parameters)
        pair.step(disabled())
        velocity = 0.9 * velocity + 1 + 1e-4 * expected
        expected = expected - 1e-3 * velocity
    torch.testing.assert_close(prompt.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "present"),
    [((1, 1, 0), ["adamw"]), ((0, 1, 1), ["adamw", "sgd"]), ((0, 0, 1), ["sgd"]), ((0, 0, 0), [])],
)
def test_an_optimiser_exists_iff_it_has_parameters(sizes, present):
    assert list(optimizers(groups(*sizes), **SETTINGS).present()) == present


def test_without_prompts_a_scaled_step_works():
    parameters = groups(prompts=0)
    pair = optimizers(parameters, **SETTINGS)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum(p.sum() for p in parameters.adapters + parameters.temperatures)).backward()
    before = parameters.adapters[0].detach().clone()
    pair.step(scaler)
    assert not torch.equal(parameters.adapters[0], before)


def test_scaled_gradients_make_the_same_step_as_unscaled_ones():
    results = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=1024.0), disabled()):
        parameters = groups()
        pair = optimizers(parameters, **SETTINGS)
        for _ in range(3):
            pair.zero_grad()
            scaler.scale(sum((p**2).sum() for lists in parameters for p in lists)).backward()
            pair.step(scaler)
        results.append([p.detach() for lists in parameters for p in lists])
    for scaled, unscaled in zip(*results, strict=True):
        assert torch.equal(scaled, unscaled)  # powers of two scale exactly


def test_a_non_finite_gradient_skips_the_step_and_halves_the_scale_once():
    parameters = groups()
    before = [p.detach().clone() for lists in parameters for p in lists]
    pair = optimizers(parameters, **SETTINGS)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # creates the scale on the device
    give_gradients(parameters, scale=float("inf"))
    pair.step(scaler)
    assert scaler.get_scale() == 512.0
    for old, new in zip(before, (p for lists in parameters for p in lists), strict=True):
        assert torch.equal(old, new)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_both_optimisers_step_with_one_scaler_on_a_gpu():
    moved = ParameterGroups(*([Parameter(p.detach().cuda()) for p in lists] for lists in groups()))
    before = [p.detach().clone() for lists in moved for p in lists]
    pair = optimizers(moved, **SETTINGS)
    scaler = torch.amp.GradScaler("cuda")
    scaler.scale(sum((p**2).sum() for lists in moved for p in lists)).backward()
    pair.step(scaler)
    assert all(not torch.equal(old, new) for old, new in zip(before, (p for ps in moved for p in ps), strict=True))


def test_zero_grad_drops_all_gradients():
    parameters = groups()
    pair = optimizers(parameters, **SETTINGS)
    give_gradients(parameters)
    pair.zero_grad()
    assert all(p.grad is None for lists in parameters for p in lists)


def test_training_goes_on_to_the_bit_from_a_saved_state(tmp_path):
    def steps(pair, parameters, epochs):
        for epoch in epochs:
            set_rates(pair, epoch, start=0.1, **RELEASE)
            give_gradients(parameters, scale=float(epoch))
            pair.step(disabled())

    through, resumed = groups(), groups()
    first, second = optimizers(through, **SETTINGS), optimizers(resumed, **SETTINGS)
    steps(first, through, [1, 2])
    with torch.no_grad():
        for source, target in zip(through, resumed, strict=True):
            for old, new in zip(source, target, strict=True):
                new.copy_(old)
    save_checkpoint(tmp_path / "state.pth", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "state.pth"))
    assert second.rates() == first.rates()
    steps(first, through, [3, 4])
    steps(second, resumed, [3, 4])
    for left, right in zip(through, resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_state_with_other_optimisers_is_refused():
    state = optimizers(groups(prompts=0), **SETTINGS).state_dict()
    with pytest.raises(CheckpointError, match=r"\['adamw'\], this model needs \['adamw', 'sgd'\]"):
        optimizers(groups(), **SETTINGS).load_state_dict(state)


def test_a_state_of_other_groups_is_refused():
    state = optimizers(groups(adapters=3), **SETTINGS).state_dict()
    with pytest.raises(CheckpointError, match="the state of adamw is that of another model"):
        optimizers(groups(), **SETTINGS).load_state_dict(state)


@pytest.mark.parametrize("key", ["lr", "lr_sgd", "weight_decay", "weight_decay_sgd", "momentum"])
def test_numbers_out_of_range_are_refused_with_their_value(key):
    with pytest.raises(OptimError, match="-0.5"):
        optimizers(groups(), **{**SETTINGS, key: -0.5})
