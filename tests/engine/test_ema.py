import numpy as np
import pytest
import torch
from torch import nn

from engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from engine.ema import Ema, EmaError, decay_over


def live(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": nn.Parameter(torch.randn(4, 3, generator=generator)),
        "running_mean": torch.randn(4, generator=generator),
        "num_batches_tracked": torch.tensor(7),
        "tau": nn.Parameter(torch.tensor(0.01)),
    }


def change(tensors, seed):
    with torch.no_grad():
        for name, tensor in live(seed).items():
            tensors[name].copy_(tensor + seed if name == "num_batches_tracked" else tensor)


def snapshot(tensors):
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_the_average_is_the_recursion_in_numpy():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    expected = {name: tensors[name].detach().double().numpy() for name in ("weight", "running_mean", "tau")}
    for seed in (1, 2, 3):
        change(tensors, seed)
        ema.update()
        for name, average in expected.items():
            expected[name] = 0.9 * average + (1 - 0.9) * tensors[name].detach().double().numpy()
    for name, average in expected.items():
        np.testing.assert_allclose(ema.state_dict()[name].numpy(), average, rtol=0, atol=1e-6)


def test_integers_and_named_tensors_are_copied():
    tensors = live()
    ema = Ema(tensors, decay=0.9, copied={"tau"})
    change(tensors, 1)
    with torch.no_grad():
        tensors["tau"].fill_(0.5)
    ema.update()
    assert ema.state_dict()["num_batches_tracked"] == 8
    assert ema.state_dict()["tau"] == 0.5


def test_an_average_of_copied_tensors_only_follows_them():
    tensors = {"steps": torch.tensor(1)}
    ema = Ema(tensors, decay=0.9)
    tensors["steps"] += 4
    ema.update()
    assert ema.state_dict()["steps"] == 5


def test_updating_leaves_the_model_alone():
    tensors = live()
    ema = Ema(tensors, decay=0.5)
    change(tensors, 1)
    before = snapshot(tensors)
    ema.update()
    assert equal(snapshot(tensors), before)


def test_reset_starts_anew_from_the_current_values():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    change(tensors, 1)
    ema.update()
    ema.reset()
    assert equal(ema.state_dict(), snapshot(tensors))


def test_the_model_has_the_averages_inside_and_its_own_values_after():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    change(tensors, 1)
    ema.update()
    own, averages = snapshot(tensors), snapshot(ema.state_dict())
    with ema.applied():
        assert equal(snapshot(tensors), averages)
    assert equal(snapshot(tensors), own)
    assert equal(ema.state_dict(), averages)


def test_values_come_back_to_the_bit_after_exceptions_and_changes_inside():
    tensors = live()
    with torch.no_grad():
        tensors["weight"][0, 0] = float("nan")
        tensors["weight"][0, 1] = -0.0
    ema = Ema(tensors, decay=0.9)
    own = tensors["weight"].detach().clone().view(torch.int32)

    def fails_inside():
        with ema.applied():
            tensors["weight"].data.fill_(3.0)
            raise KeyError("evaluation failed")

    pytest.raises(KeyError, fails_inside)
    assert torch.equal(tensors["weight"].detach().view(torch.int32), own)


def test_applying_can_be_nested():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    change(tensors, 1)
    own = snapshot(tensors)
    with ema.applied(), ema.applied():
        assert equal(snapshot(tensors), ema.state_dict())
    assert equal(snapshot(tensors), own)


def test_parameters_stay_trainable_and_averages_carry_no_gradient():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    with ema.applied():
        pass
    (tensors["weight"] ** 2).sum().backward()
    assert torch.equal(tensors["weight"].grad, 2 * tensors["weight"].detach())
    assert not any(average.requires_grad for average in ema.state_dict().values())


def test_a_batch_norm_in_training_is_followed():
    module = nn.BatchNorm1d(2)
    ema = Ema(module.state_dict(keep_vars=True), decay=0.5)
    module(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    ema.update()
    # running mean: 0.1 * (2, 4) after one batch, averaged with the initial 0
    torch.testing.assert_close(ema.state_dict()["running_mean"], torch.tensor([0.1, 0.2]))
    assert ema.state_dict()["num_batches_tracked"] == 1


def test_the_state_survives_a_checkpoint_to_the_bit(tmp_path):
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    change(tensors, 1)
    ema.update()
    save_checkpoint(tmp_path / "ema.pth", ema.state_dict())
    other = Ema(live(5), decay=0.9)
    other.load_state_dict(load_checkpoint(tmp_path / "ema.pth"))
    assert equal(other.state_dict(), ema.state_dict())


def test_loading_leaves_the_model_alone():
    tensors = live()
    before = snapshot(tensors)
    Ema(tensors, decay=0.9).load_state_dict(Ema(live(1), decay=0.9).state_dict())
    assert equal(snapshot(tensors), before)


def test_a_state_with_other_names_is_refused():
    state = {**live(), "extra": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="extra"):
        Ema(live(), decay=0.9).load_state_dict(state)


def test_a_state_with_other_shapes_is_refused_and_nothing_loaded():
    tensors = live()
    ema = Ema(tensors, decay=0.9)
    before = snapshot(ema.state_dict())
    state = {**live(1), "tau": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"tau is \(2,\), here \(\)"):
        ema.load_state_dict(state)
    assert equal(ema.state_dict(), before)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(EmaError, match="decay"):
        Ema(live(), decay=decay)


def test_a_copied_name_that_is_not_there_is_refused():
    with pytest.raises(EmaError, match="tau_global"):
        Ema(live(), decay=0.9, copied=("tau_global",))


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.0), (10, 0.0), (100, 0.9), (8424, 1 - 10 / 8424)])
def test_an_average_by_itself_spans_a_tenth_of_the_steps(steps, decay):
    assert decay_over(steps) == pytest.approx(decay, abs=1e-15)
