import math

import pytest
import torch
from torch.nn import Parameter

from engine import optim
from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from engine.optim import OptimError, optimizers, set_rates
from engine.schedules import Period, Settings, schedule
from model.method import Group

FINITE = torch.tensor(True)  # noqa: FBT003
RELEASE = Settings(highest=5e-5, warmup=3, start=5e-7, floor=1e-7, length=60)


def groups(adapters=2, temperatures=2, prompts=1, seed=0):
    """The groups of RAM at the rates of the release."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (adapters, temperatures, prompts)
    lists = [[Parameter(torch.randn(3, generator=generator)) for _ in range(size)] for size in sizes]
    return [
        Group("adapters", lists[0], "adamw", 5e-6, 1e-4),
        Group("temperatures", lists[1], "adamw", 5e-5, 1e-4),
        Group("prompts", lists[2], "sgd", 1e-3, 1e-4, 0.9),
    ]


def all_of(made):
    return [parameter for group in made for parameter in group.parameters]


def set_for(pair, epoch, name="cosine"):
    set_rates(pair, schedule(name, RELEASE), Period(epoch, 0, 1))


def give_gradients(made, scale=1.0):
    for parameter in all_of(made):
        parameter.grad = torch.full_like(parameter, scale)


def disabled():
    return torch.amp.GradScaler("cpu", enabled=False)


def test_each_group_has_its_own_base_rate():
    pair = optimizers(groups())
    bases = {group["name"]: group["base_lr"] for group in pair.groups()}
    assert bases == pytest.approx({"adapters": 5e-6, "temperatures": 5e-5, "prompts": 1e-3})


def test_rates_are_set_from_the_base_and_not_from_each_other():
    pair = optimizers(groups())
    for epoch in (1, 1, 5, 2):
        set_for(pair, epoch)
    expected = {name: 5e-7 + 2 / 3 * (base - 5e-7) for name, base in (
        ("adapters", 5e-6), ("temperatures", 5e-5), ("prompts", 1e-3))}  # fmt: skip
    assert pair.rates() == pytest.approx(expected)


@pytest.mark.parametrize(("name", "expected"), [("cosine", 0.9), ("one-cycle", 0.85)])  # at the peak of the cycle
def test_beta1_and_momentum_are_the_groups_unless_the_schedule_moves_them(name, expected):
    pair = optimizers([*groups(), Group("vectors", [Parameter(torch.zeros(3))], "adam", 1e-3, 0.0)])
    for epoch in (1, 3):
        set_for(pair, epoch, name)
    found = {group["name"]: group.get("betas", group.get("momentum")) for group in pair.groups()}
    assert found.pop("prompts") == expected
    assert found == dict.fromkeys(("adapters", "temperatures", "vectors"), (expected, 0.999))


def test_adapters_and_temperatures_step_as_adamw_in_closed_form():
    parameters = groups()
    before = [p.detach().clone() for p in (parameters[0].parameters[0], parameters[1].parameters[0])]
    pair = optimizers(parameters)
    give_gradients(parameters)
    pair.step(disabled(), FINITE)
    for old, new, rate in zip(
        before, (parameters[0].parameters[0], parameters[1].parameters[0]), (5e-6, 5e-5), strict=True
    ):
        # the first step of Adam is the sign of the gradient, after the decoupled decay
        torch.testing.assert_close(new.detach(), old * (1 - rate * 1e-4) - rate, rtol=0, atol=1e-7)


def test_adam_has_its_weight_decay_within_the_gradient():
    parameter = Parameter(torch.tensor([2.0, -2.0, 0.5]))
    pair = optimizers([Group("matrices", [parameter], "adam", 0.1, 0.25)])
    parameter.grad = torch.tensor([-0.4, -0.4, -0.4])
    pair.step(disabled(), FINITE)
    # the first step of Adam is the sign of -0.4 + 0.25 p, whatever its size
    torch.testing.assert_close(parameter.detach(), torch.tensor([1.9, -1.9, 0.6]))


def test_prompts_step_as_sgd_with_momentum_in_closed_form():
    parameters = groups()
    (prompt,) = parameters[2].parameters
    expected, velocity = prompt.detach().clone(), torch.zeros(3)
    pair = optimizers(parameters)
    for _ in range(3):
        give_gradients(parameters)
        pair.step(disabled(), FINITE)
        velocity = 0.9 * velocity + 1 + 1e-4 * expected
        expected = expected - 1e-3 * velocity
    torch.testing.assert_close(prompt.detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "present"),
    [((1, 1, 0), ["adamw"]), ((0, 1, 1), ["adamw", "sgd"]), ((0, 0, 1), ["sgd"]), ((0, 0, 0), [])],
)
def test_an_optimiser_exists_iff_it_has_parameters(sizes, present):
    assert list(optimizers(groups(*sizes)).by_kind) == present


def test_without_prompts_a_scaled_step_works():
    parameters = groups(prompts=0)
    pair = optimizers(parameters)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(sum(p.sum() for p in all_of(parameters))).backward()
    before = parameters[0].parameters[0].detach().clone()
    pair.step(scaler, FINITE)
    assert not torch.equal(parameters[0].parameters[0], before)


def test_scaled_gradients_make_the_same_step_as_unscaled_ones():
    results = []
    for scaler in (torch.amp.GradScaler("cpu", init_scale=1024.0), disabled()):
        parameters = groups()
        pair = optimizers(parameters)
        for _ in range(3):
            pair.zero_grad()
            scaler.scale(sum((p**2).sum() for p in all_of(parameters))).backward()
            pair.step(scaler, FINITE)
        results.append([p.detach() for p in all_of(parameters)])
    for scaled, unscaled in zip(*results, strict=True):
        assert torch.equal(scaled, unscaled)  # powers of two scale exactly


def test_a_non_finite_gradient_skips_the_step_and_halves_the_scale_once():
    parameters = groups()
    before = [p.detach().clone() for p in all_of(parameters)]
    pair = optimizers(parameters)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))  # creates the scale on the device
    give_gradients(parameters, scale=float("inf"))
    pair.step(scaler, FINITE)
    assert scaler.get_scale() == 512.0
    for old, new in zip(before, (p for p in all_of(parameters)), strict=True):
        assert torch.equal(old, new)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_both_optimisers_step_with_one_scaler_on_a_gpu():
    moved = [g._replace(parameters=[Parameter(p.detach().cuda()) for p in g.parameters]) for g in groups()]
    before = [p.detach().clone() for p in all_of(moved)]
    pair = optimizers(moved)
    scaler = torch.amp.GradScaler("cuda")
    scaler.scale(sum((p**2).sum() for p in all_of(moved))).backward()
    pair.step(scaler, FINITE.cuda())
    assert all(not torch.equal(old, new) for old, new in zip(before, all_of(moved), strict=True))


@pytest.fixture
def fused(monkeypatch):
    """CPUs are among the devices whose optimisers are fused: torch has such kernels for them too."""
    monkeypatch.setattr(optim, "FUSED", ("cuda", "cpu"))


def all_kinds():
    return [*groups(), Group("matrices", [Parameter(torch.linspace(-1, 1, 3))], "adam", 1e-3, 0.25)]


def stepped(made, pair, scaler, scales=(1.0, 3.0, -2.0)):
    for scale in scales:
        pair.zero_grad()
        scaler.scale(sum((scale * p**2).sum() for p in all_of(made))).backward()
        pair.step(scaler, FINITE)
    return [p.detach() for p in all_of(made)]


def test_optimisers_on_a_cpu_are_not_fused():
    assert [optimizer.defaults["fused"] for optimizer in optimizers(all_kinds()).by_kind.values()] == [None] * 3


@pytest.mark.parametrize("scaled", [True, False])
def test_fused_optimisers_make_the_same_steps(monkeypatch, scaled):
    plain = all_kinds()
    expected = stepped(plain, optimizers(plain), torch.amp.GradScaler("cpu", enabled=scaled))
    monkeypatch.setattr(optim, "FUSED", ("cpu",))
    parameters = all_kinds()
    found = stepped(parameters, optimizers(parameters), torch.amp.GradScaler("cpu", enabled=scaled))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("fused")
def test_a_skipped_first_step_of_fused_optimisers_leaves_nothing_behind():
    runs = []
    for scales in ((math.inf, 1.0, 3.0), (1.0, 3.0)):
        parameters = all_kinds()
        runs.append(stepped(parameters, optimizers(parameters), torch.amp.GradScaler("cpu", init_scale=8.0), scales))
    for skipping, plain in zip(*runs, strict=True):
        assert torch.equal(skipping, plain)  # scales that are powers of two scale exactly


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_loss_that_is_not_finite_makes_no_step_even_if_its_gradients_are(monkeypatch, is_fused, scaled):
    monkeypatch.setattr(optim, "FUSED", ("cuda", "cpu") if is_fused else ("cuda",))
    skipping, plain = all_kinds(), all_kinds()
    pair, scaler = optimizers(skipping), torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled)
    scaler.scale(sum((p**2).sum() for p in all_of(skipping))).backward()
    pair.step(scaler, ~FINITE)
    assert scaler.get_scale() == ((4.0 if is_fused else 8.0) if scaled else 1.0)
    expected = stepped(plain, optimizers(plain), torch.amp.GradScaler("cpu", init_scale=8.0, enabled=scaled))
    for ours, theirs in zip(stepped(skipping, pair, scaler), expected, strict=True):
        assert torch.equal(ours, theirs)  # scales that are powers of two scale exactly


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("scaled", [True, False])
def test_an_optimiser_without_any_gradient_makes_no_step(scaled):
    parameters = all_kinds()
    before = [p.detach().clone() for p in all_of(parameters)]
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    scaler.scale((parameters[0].parameters[0] ** 2).sum()).backward()
    optimizers(parameters).step(scaler, FINITE)
    moved = [not torch.equal(old, new) for old, new in zip(before, all_of(parameters), strict=True)]
    assert moved == [True] + [False] * (len(moved) - 1)


@pytest.mark.parametrize("first_fused", [True, False])
def test_a_state_goes_on_where_optimisers_are_fused_and_where_they_are_not(monkeypatch, tmp_path, first_fused):
    def made(is_fused, parameters):
        monkeypatch.setattr(optim, "FUSED", ("cpu",) if is_fused else ())
        return optimizers(parameters)

    through, resumed = all_kinds(), all_kinds()
    first, second = made(first_fused, through), made(not first_fused, resumed)
    stepped(through, first, disabled())
    with torch.no_grad():
        for old, new in zip(all_of(through), all_of(resumed), strict=True):
            new.copy_(old)
    save_checkpoint(tmp_path / "state.pth", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "state.pth"))
    assert {group["fused"] for group in second.groups()} == {None if first_fused else True}
    for ours, theirs in zip(stepped(resumed, second, disabled()), stepped(through, first, disabled()), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("fused")
def test_a_state_without_momenta_gives_a_fused_optimiser_some():
    parameters, other = groups(), groups()
    pair = optimizers(parameters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optim, "FUSED", ())
        pair.load_state_dict(optimizers(other).state_dict())  # before its first step
    assert [state["momentum_buffer"].tolist() for state in pair.by_kind["sgd"].state.values()] == [[0.0] * 3]


def test_zero_grad_drops_all_gradients():
    parameters = groups()
    pair = optimizers(parameters)
    give_gradients(parameters)
    pair.zero_grad()
    assert all(p.grad is None for p in all_of(parameters))


def test_training_goes_on_to_the_bit_from_a_saved_state(tmp_path):
    def steps(pair, parameters, epochs):
        for epoch in epochs:
            set_for(pair, epoch)
            give_gradients(parameters, scale=float(epoch))
            pair.step(disabled(), FINITE)

    through, resumed = groups(), groups()
    first, second = optimizers(through), optimizers(resumed)
    steps(first, through, [1, 2])
    with torch.no_grad():
        for old, new in zip(all_of(through), all_of(resumed), strict=True):
            new.copy_(old)
    save_checkpoint(tmp_path / "state.pth", first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path / "state.pth"))
    assert second.rates() == first.rates()
    steps(first, through, [3, 4])
    steps(second, resumed, [3, 4])
    assert all(torch.equal(a, b) for a, b in zip(all_of(through), all_of(resumed), strict=True))


def test_a_state_with_other_optimisers_is_refused():
    state = optimizers(groups(prompts=0)).state_dict()
    with pytest.raises(CheckpointError, match=r"\['adamw'\], this model needs \['adamw', 'sgd'\]"):
        optimizers(groups()).load_state_dict(state)


def test_a_state_of_other_groups_is_refused():
    state = optimizers(groups(adapters=3)).state_dict()
    with pytest.raises(CheckpointError, match="the state of adamw is that of another model"):
        optimizers(groups()).load_state_dict(state)


@pytest.mark.parametrize(("field", "name"), [("lr", "learning rate"), ("weight_decay", "weight decay"),
                                             ("momentum", "momentum")])  # fmt: skip
@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf])
def test_numbers_out_of_range_are_refused_with_their_group_and_value(field, name, value):
    with pytest.raises(OptimError, match=f"the {name} of the prompts is {value}; it has to be 0 or more"):
        optimizers([groups()[2]._replace(**{field: value})])


def test_an_optimiser_that_does_not_exist_is_refused():
    with pytest.raises(OptimError, match="the prompts ask for the optimiser 'lion', not one of adamw, adam, sgd"):
        optimizers([groups()[2]._replace(optimizer="lion")])
