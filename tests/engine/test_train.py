import math
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from engine import nonfinite, optim, train
from engine.ema import Ema
from engine.nonfinite import NonFiniteLossError
from engine.optim import optimizers, set_rates
from engine.schedules import Period, Settings, schedule
from engine.train import Trainer
from model.method import Group

CPU = torch.device("cpu")
COSINE = Settings(highest=1.0, warmup=0, start=0.0, floor=0.0, length=60)
NAMES = ("cat", "dog", "tree")
KEYS = {
    "epoch", "step", "loss", "loss_local", "loss_global", "margin", "rounds", "images_per_second", "lr_adapters",
    "lr_temperatures", "lr_prompts",
}  # fmt: skip


class Batch(NamedTuple):
    images: Tensor
    targets: Tensor
    paths: list[str]


class Toy(nn.Module):
    """A linear classifier with what a trainer wants to know of RAM."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(12, 3, generator=generator) / 10)
        self.bias = nn.Parameter(torch.zeros(3))
        self.local_temperature, self.global_temperature = (nn.Parameter(torch.tensor(v)) for v in (0.5, 2.0))
        self.register_buffer("seen", torch.zeros(()))  # a running statistic
        self.encoded, self.dtypes, self.modes, self.begun = [], set(), [], []

    def trained_state(self):
        return self.state_dict()

    def begin_epoch(self, epoch):
        self.begun.append((epoch, self.training))

    def encode_labels(self, names):
        self.encoded.append(names)
        return self.bias

    def forward(self, images, labels, targets):
        assert targets.shape == (len(images), len(NAMES))
        logits = images.flatten(1) @ self.weight
        self.dtypes.add(logits.dtype)
        self.modes.append(self.training)
        logits = logits.float() + labels
        self.seen += logits.detach().sum()
        return SimpleNamespace(
            local_logits=logits / self.local_temperature, global_logits=logits / self.global_temperature
        )  # fmt: skip

    def losses(self, output, targets):
        local, global_ = self.loss(output.local_logits, targets), self.loss(output.global_logits, targets)
        return {"local": self.loss_weight * local, "global": self.loss_weight * global_}

    def diagnostics(self, output):  # noqa: ARG002
        return {"margin": self.local_temperature.detach(), "rounds": torch.tensor(3)}


def batches(count=5, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, size, 3, 2, 2, generator=generator)
    targets = (images.flatten(2)[..., :3] > 0).float()
    return [Batch(images[i], targets[i], [f"{i}-{j}.jpg" for j in range(size)]) for i in range(count)]


def loss_of(logits, targets):
    return nn.functional.binary_cross_entropy_with_logits(logits, targets)


@pytest.fixture
def made():
    """A trainer of a new toy, and the list that its log lines are put in."""

    def make(*, model=None, ema=None, sgd=0.1, adamw=1e-2, factor=1.0, loss=None, loss_weight=1.0, **changes):
        model = model or Toy()
        model.loss, model.loss_weight = loss or loss_of, loss_weight
        temperatures = [model.local_temperature, model.global_temperature]
        pair = optimizers([
            Group("adapters", [model.weight], "adamw", adamw * factor, 0.0),
            Group("temperatures", temperatures, "adamw", adamw, 0.0),
            Group("prompts", [model.bias], "sgd", sgd, 0.0, 0.9),
        ])  # fmt: skip
        lines = []
        settings = {
            "model": model, "names": NAMES, "optimizers": pair,
            "set_rates": partial(set_rates, pair, schedule("cosine", COSINE)), "rates_per_step": False,
            "ema": ema and ema(model), "scaler": torch.amp.GradScaler("cpu", enabled=False), "device": CPU,
            "autocast": None, "log": lambda **values: lines.append(values), "log_period": 2, "progress_bar": False,
            "skip_nonfinite": False,
        }  # fmt: skip
        return Trainer(**settings | changes), lines

    return make


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left | right)


def test_the_loss_falls(made):
    trainer, lines = made(adamw=2e-3, factor=10.0)
    for epoch in range(1, 16):
        trainer.epoch(epoch, batches())
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]


def test_a_step_is_that_of_plain_gradient_descent(made):
    trainer, _ = made(adamw=0.0, loss_weight=3.0)
    (batch,) = batches(1)
    reference = Toy()
    found = reference(batch.images, reference.bias, batch.targets)
    (3 * (loss_of(found.local_logits, batch.targets) + loss_of(found.global_logits, batch.targets))).backward()
    trainer.epoch(1, [batch])
    rate = 0.1 * (1 + math.cos(math.pi / 60)) / 2
    torch.testing.assert_close(trainer.model.bias, reference.bias - rate * reference.bias.grad)


def test_log_lines_have_their_keys_and_are_finite(made):
    trainer, lines = made()
    trainer.epoch(1, batches(5))
    assert all(line.keys() == KEYS for line in lines)
    assert all(math.isfinite(value) for line in lines for value in line.values())


def test_a_line_is_logged_every_period_and_at_the_end_of_the_epoch(made):
    trainer, lines = made()
    trainer.epoch(1, batches(5))
    trainer.epoch(2, batches(4))
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 2), (1, 4), (1, 5), (2, 7), (2, 9)]


def test_a_method_is_told_of_an_epoch_once_before_its_first_step_and_again_where_a_run_goes_on_in_it(made):
    trainer, _ = made()
    assert trainer.model.begun == []
    trainer.epoch(1, batches(2), after_step=lambda done: trainer.model.begun.append(done))
    trainer.model.eval()
    trainer.epoch(2, batches(1), first_batch=1)
    assert trainer.model.begun == [(1, True), 1, 2, (2, True)]


def test_a_logged_loss_is_the_mean_since_the_line_before(made):
    every, each = made(log_period=1)
    pairs, means = made(log_period=2)
    every.epoch(1, batches(4))
    pairs.epoch(1, batches(4))
    for key in ("loss", "loss_local", "loss_global"):
        values = [line[key] for line in each]
        expected = [(values[0] + values[1]) / 2, (values[2] + values[3]) / 2]
        assert [line[key] for line in means] == pytest.approx(expected)


def test_the_loss_is_the_sum_of_the_methods_losses(made):
    trainer, lines = made(loss_weight=0.5)
    trainer.epoch(1, batches())
    assert lines[0]["loss"] == pytest.approx(lines[0]["loss_local"] + lines[0]["loss_global"])


def test_what_the_method_says_of_a_step_is_logged(made):
    trainer, lines = made(adamw=0.0)
    trainer.epoch(1, batches())
    assert [lines[0][key] for key in ("margin", "rounds")] == [0.5, 3]


def test_a_rate_per_epoch_is_constant_within_it(made):
    periods = []
    trainer, _ = made(set_rates=periods.append)
    trainer.epoch(3, batches(4))
    assert periods == [Period(3, 0, 1)] * 4


def test_a_rate_per_step_is_that_of_the_step(made):
    periods = []
    trainer, _ = made(set_rates=periods.append, rates_per_step=True)
    trainer.epoch(3, batches(4))
    assert periods == [Period(3, step, 4) for step in range(4)]


def test_an_epoch_that_goes_on_has_the_rates_and_log_lines_of_a_whole_one(made):
    periods, done = [], []
    trainer, lines = made(set_rates=periods.append, rates_per_step=True, step=7)
    trainer.epoch(3, batches(4)[3:], first_batch=3, after_step=done.append)
    assert (periods, done, [line["step"] for line in lines]) == ([Period(3, 3, 4)], [4], [8])


def test_a_rate_is_set_before_the_step_that_it_is_for(made):
    trainer, lines = made(log_period=1)
    trainer.epoch(30, batches(1))
    assert lines[0]["lr_prompts"] == pytest.approx(0.05)


def test_the_average_is_updated_once_in_every_step(made):
    trainer, _ = made(ema=lambda model: Ema(dict(model.named_parameters()), decay=0.5))
    expected, history = state(trainer.model)["weight"], []
    trainer.epoch(1, batches(3), after_step=lambda _: history.append(state(trainer.model)["weight"]))
    for weight in history:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(trainer.ema.state_dict()["weight"], expected)


def test_after_every_step_the_batches_done_are_told(made):
    told = []
    trainer, _ = made()
    trainer.epoch(1, batches(3), after_step=lambda done: told.append((done, trainer.step)))
    assert told == [(1, 1), (2, 2), (3, 3)]


def test_the_model_trains_in_training_mode_on_the_seen_labels(made):
    trainer, _ = made()
    trainer.model.eval()
    trainer.epoch(1, batches(2))
    assert trainer.model.modes == [True, True]
    assert trainer.model.encoded == [NAMES, NAMES]


def test_a_batch_that_is_left_to_the_device_is_augmented_by_its_plan_before_the_model_sees_it(made):
    plain, expected = made()
    augmenting, lines = made(augment=lambda images, plan: images.float() / plan)
    plain.epoch(1, batches(2))
    augmenting.epoch(1, [SimpleNamespace(**b._asdict() | {"images": b.images * 4, "plan": 4}) for b in batches(2)])
    assert same(state(augmenting.model), state(plain.model))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_names_epoch_step_and_images(made, value):
    trainer, _ = made(loss=lambda logits, _: logits.sum() * value, step=9)
    with pytest.raises(NonFiniteLossError, match=r"in epoch 4, step 10, images 0-0\.jpg, 0-1\.jpg$") as caught:
        trainer.epoch(4, batches(2, 2))
    assert "\n" not in str(caught.value)


def test_the_progress_bar_has_a_line_of_its_own_when_training_fails(made, capsys):
    trainer, _ = made(progress_bar=True, loss=lambda logits, _: logits.sum() * math.nan)
    with pytest.raises(NonFiniteLossError):
        trainer.epoch(1, batches(2))
    assert capsys.readouterr().err.endswith("\n")


def test_a_loss_that_is_not_finite_changes_nothing(made):
    broken = batches(3)
    broken[2] = broken[2]._replace(images=broken[2].images * math.nan)
    trainer, lines = made(ema=lambda model: Ema(dict(model.named_parameters()), decay=0.5), log_period=100)
    trainer.epoch(1, broken[:2])
    before, average = state(trainer.model), {k: v.clone() for k, v in trainer.ema.state_dict().items()}
    with pytest.raises(NonFiniteLossError):
        trainer.epoch(2, broken[2:])
    assert same(state(trainer.model), before)
    assert same(trainer.ema.state_dict(), average)
    assert (trainer.step, len(lines)) == (2, 1)


@pytest.fixture
def ahead(monkeypatch):
    """As on a GPU, where optimisers skip steps by themselves and the host runs ahead."""
    for module in (train, optim):
        monkeypatch.setattr(module, "FUSED", ("cuda", "cpu"))


@pytest.mark.parametrize("is_ahead", [False, True])
def test_losses_are_read_when_a_line_is_logged_where_the_host_runs_ahead_else_after_every_step(
    made, monkeypatch, request, is_ahead
):
    if is_ahead:
        request.getfixturevalue("ahead")
    read, steps = [], []
    monkeypatch.setattr(nonfinite, "fetched", lambda loss: lambda: read.append(trainer.step) or loss.item())
    trainer, _ = made(log_period=3)
    trainer.epoch(1, batches(5), after_step=lambda _: steps.append(len(read)))
    assert steps == ([0, 0, 3, 3, 5] if is_ahead else [1, 2, 3, 4, 5])


@pytest.mark.usefixtures("ahead")
def test_where_the_host_runs_ahead_what_follows_a_loss_that_is_not_finite_trains_on_and_then_it_stops(made):
    trainer, lines = made(log_period=3, set_rates=lambda _: None)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 2, images 1-0\.jpg"):
        trainer.epoch(1, spoilt(4, [1]))
    plain, _ = made(set_rates=lambda _: None)
    plain.epoch(1, [batches(4)[0], batches(4)[2]])
    assert same(state(trainer.model), state(plain.model))
    assert (trainer.step, lines) == (3, [])


@pytest.mark.usefixtures("ahead")
def test_where_the_host_runs_ahead_losses_are_looked_at_before_a_checkpoint(made):
    trainer, _ = made(log_period=100)
    with pytest.raises(NonFiniteLossError, match="step 1, "):
        trainer.epoch(1, spoilt(4, [0]), after_step=lambda done: done == 2 and trainer.settle())
    assert trainer.step == 2


def spoilt(count, at):
    found = batches(count)
    for i in at:
        found[i] = found[i]._replace(images=found[i].images * math.nan)
    return found


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_skipped_step_leaves_everything_as_if_its_batch_had_not_come(made, request, scaled, is_ahead):
    if is_ahead:
        request.getfixturevalue("ahead")

    def run(parts):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0, enabled=scaled)
        trainer, lines = made(skip_nonfinite=True, set_rates=lambda _: None, scaler=scaler, log_period=100)
        trainer.epoch(1, parts)
        return trainer, lines[-1]

    with pytest.warns(UserWarning, match="finite|left out"):
        skipping, line = run(spoilt(4, [1]))
    whole = batches(4)
    plain, expected = run([whole[0], *whole[2:]])
    assert same(state(skipping.model), state(plain.model))
    assert line["loss"] == expected["loss"]
    assert (skipping.step, plain.step) == (4, 3)
    assert (line["skipped_steps"], "skipped_steps" in expected) == (1, False)


@pytest.mark.filterwarnings("ignore:left out", "ignore:epoch 1 left out")
def test_in_a_skipped_step_the_average_goes_on_with_the_weights_as_they_are(made):
    trainer, _ = made(ema=lambda model: Ema(model.state_dict(), decay=0.5), skip_nonfinite=True)
    expected, history = state(trainer.model), []
    trainer.epoch(1, spoilt(3, [1]), after_step=lambda _: history.append(state(trainer.model)))
    for now in history:
        expected = {name: 0.5 * tensor + 0.5 * now[name] for name, tensor in expected.items()}
    torch.testing.assert_close(trainer.ema.state_dict(), expected)


@pytest.mark.filterwarnings("ignore:left out", "ignore:epoch 1 left out")
def test_a_log_line_without_any_finite_loss_has_none(made):
    trainer, lines = made(skip_nonfinite=True, log_period=1)
    trainer.epoch(1, spoilt(2, [0]))
    assert ["loss" in line for line in lines] == [False, True]
    assert lines[0]["skipped_steps"] == 1


def test_the_first_skipped_steps_are_named_and_all_are_counted(made):
    trainer, _ = made(skip_nonfinite=True)
    with pytest.warns(UserWarning, match="left out") as caught:
        trainer.epoch(2, spoilt(7, [0, 2, 3, 5]))
    said = [str(warning.message) for warning in caught]
    assert said[0].startswith("left out: the loss is nan in epoch 2, step 1, images 0-0.jpg, 0-1.jpg")
    assert [text.partition(", images")[0][-1] for text in said[:3]] == ["1", "3", "4"]
    assert said[3:] == ["epoch 2 left out 4 of 7 steps without a finite loss"]


def test_an_epoch_without_any_finite_loss_stops(made):
    trainer, _ = made(skip_nonfinite=True)
    with pytest.warns(UserWarning, match="left out"), pytest.raises(NonFiniteLossError, match="no loss of epoch 1 was"):
        trainer.epoch(1, spoilt(2, [0, 1]))


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize(("count", "first_batch"), [(2, 3), (1, 0)])
def test_the_rest_of_an_epoch_or_a_single_step_may_be_left_out(made, count, first_batch):
    trainer, _ = made(skip_nonfinite=True, step=first_batch)
    with pytest.warns(UserWarning, match=f"epoch 1 left out {count} of {count} steps"):
        trainer.epoch(1, spoilt(count, range(count)), first_batch=first_batch)


def test_a_training_that_does_not_recover_stops(made, monkeypatch):
    monkeypatch.setattr(nonfinite, "STUCK", 3)
    trainer, _ = made(skip_nonfinite=True)
    with pytest.warns(UserWarning, match="left out"):
        trainer.epoch(1, spoilt(6, [0, 1, 3, 4]))  # never three in a row
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(NonFiniteLossError, match="3 steps in a row") as caught,
    ):
        trainer.epoch(2, spoilt(6, [1, 2, 3]))
    assert "step 10, images 3-0.jpg" in str(caught.value)


def test_truncated_training_images_are_named(made):
    class Loader(list):
        truncated = ["a.jpg"]  # noqa: RUF012

    trainer, _ = made()
    with pytest.warns(UserWarning, match="training images with 1 image files that are cut short"):
        trainer.epoch(1, Loader(batches(2)))


def test_a_scaled_loss_gives_the_steps_of_an_unscaled_one(made):
    plain, _ = made()
    scaled, _ = made(scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=True))
    plain.epoch(1, batches())
    scaled.epoch(1, batches())
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(scaled.model.state_dict()[name], tensor)


def test_gradients_that_overflow_under_the_scale_lower_it_and_change_nothing(made):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, enabled=True)
    trainer, _ = made(scaler=scaler, loss_weight=100.0)
    before = state(trainer.model)
    trainer.epoch(1, batches(1))
    after = dict(trainer.model.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert scaler.get_scale() == 2.0**126


def test_mixed_precision_is_that_of_the_forward_pass_alone(made):
    trainer, lines = made(autocast=torch.bfloat16)
    trainer.epoch(1, batches())
    assert trainer.model.dtypes == {torch.bfloat16}
    assert {tensor.dtype for tensor in state(trainer.model).values()} == {torch.float32}
    assert math.isfinite(lines[-1]["loss"])


def test_without_mixed_precision_all_is_float32(made):
    trainer, _ = made()
    trainer.epoch(1, batches(1))
    assert trainer.model.dtypes == {torch.float32}


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_on_stderr_if_it_is_wanted(made, capsys, shown):
    trainer, _ = made(progress_bar=shown)
    trainer.epoch(7, batches(2))
    out, err = capsys.readouterr()
    assert out == ""
    assert ("epoch 7" in err) == shown


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_memory_is_logged(made):
    trainer, lines = made(model=Toy().to("cuda"), device=torch.device("cuda"))
    trainer.epoch(1, batches())
    assert lines[-1].keys() == KEYS | {"peak_memory_gb"}
