"""Learning rates against those of official code, of torch, and in closed form."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.schedules import SCHEDULES, Period, ScheduleError, Settings, schedule

DATA = Path(__file__).parents[1] / "data"
RELEASE = json.loads((DATA / "release_schedule.json").read_text())  # RAM: rates of each group
OTHERS = np.load(DATA / "compared_schedules.npz")  # CoOp, MKT
ML_DECODER = np.load(DATA / "release_ml_decoder.npz")
BASES = (5e-6, 5e-5, 1e-3)  # adapters, temperatures and prompts of RAM, as in RELEASE
DEFAULT = {"highest": 1.0, "warmup": 3, "start": 0.0, "floor": 0.0, "length": 60}
IN_PROPORTION = ("linear-cosine", "stairs-cosine", "one-cycle")


def made(name, **settings):
    return schedule(name, Settings(**DEFAULT | settings))


def whole(epoch):
    return Period(epoch, 0, 1)


def steps(epochs, count):
    return [Period(epoch, index, count) for epoch in range(1, epochs + 1) for index in range(count)]


def cosine(progress, base=1.0, **settings):
    """The rate of the default where `progress` epochs are done, a multiple of 1/8."""
    epoch = max(math.ceil(progress), 1)
    return made("cosine", **settings)(Period(epoch, round(8 * (progress - epoch + 1)) - 1, 8), base).lr


def rates(name, periods, base, **settings):
    found = made(name, **settings)
    return [found(period, base).lr for period in periods]


def test_a_period_knows_the_epochs_done_before_and_after_it():
    assert (whole(3).begun, whole(3).ended) == (2, 3)
    assert (Period(3, 1, 4).begun, Period(3, 1, 4).ended) == (2.25, 2.5)


@pytest.mark.parametrize("benchmark", ["coco", "nus"])
def test_cosine_is_that_of_rams_release_in_every_epoch_and_group(benchmark):
    found = made("cosine", highest=5e-5, start=5e-7, floor=1e-7)
    for epoch, expected in enumerate(RELEASE[benchmark], start=1):
        by_group = dict(zip(("adapters", "temperatures", "prompts"), BASES, strict=True))
        assert [found(whole(epoch), by_group[name]).lr for name in RELEASE["groups"]] == pytest.approx(
            expected, rel=1e-9, abs=0
        )


@pytest.mark.parametrize(("progress", "share"), [(15, (2 + math.sqrt(2)) / 4), (30, 0.5), (40, 0.25), (60, 0.0)])
def test_cosine_has_its_closed_form_values(progress, share):
    assert cosine(progress, floor=0.2) == pytest.approx(0.2 + 0.8 * share, abs=1e-12)


def test_cosine_rises_in_a_line_within_epochs_too():
    assert cosine(1.5, start=0.1) == pytest.approx(0.55)


def test_cosine_without_warm_up_begins_next_to_the_base():
    assert cosine(0.125, warmup=0, start=0.1) == pytest.approx(1, rel=1e-4)


def test_cosine_stays_at_the_floor_after_its_end():
    assert cosine(90, floor=0.25) == 0.25


@pytest.mark.parametrize("base", [0.0, 1e-8])
@pytest.mark.parametrize("name", ["cosine", "constant-cosine"])
@pytest.mark.parametrize("epoch", [1, 2, 30, 90])
def test_a_group_slower_than_start_and_floor_never_learns_faster_than_its_base(name, base, epoch):
    (rate,) = rates(name, [whole(epoch)], base, start=5e-7, floor=1e-7)
    assert rate == base


def test_constant_cosine_is_that_of_coop():
    found = rates("constant-cosine", map(whole, range(1, 51)), 2e-3, warmup=1, start=1e-5, length=50)
    assert found == pytest.approx(OTHERS["coop/lr"], rel=1e-9, abs=0)


def test_constant_cosine_goes_on_with_its_full_length_and_ends_at_the_floor():
    found = rates("constant-cosine", map(whole, (4, 34, 64, 90)), 1.0, warmup=3, floor=0.2)
    assert found == pytest.approx([1.0, 0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("stage", "settings"),
    [("stage1", {"warmup": 2, "floor": 1e-6, "length": 20}), ("stage2", {"warmup": 0, "floor": 1e-8, "length": 4})],
)
def test_linear_cosine_is_that_of_both_stages_of_mkt(stage, settings):
    epochs, expected = OTHERS[f"mkt/{stage}.epoch"], OTHERS[f"mkt/{stage}.lr"]
    count = round(1 / (epochs[1] - epochs[0]))
    periods = steps(settings["length"], count)
    assert [period.begun for period in periods] == pytest.approx(epochs)
    assert rates("linear-cosine", periods, 1e-3, highest=1e-3, **settings) == pytest.approx(expected, rel=1e-9, abs=0)


def test_linear_cosine_scales_the_floor_like_the_rate_of_a_group():
    settings = {"highest": 1e-3, "warmup": 1, "floor": 1e-6, "length": 3}
    for scale in OTHERS["mkt/short.lr_scale"]:
        found = rates("linear-cosine", steps(3, 2), 1e-3 * scale, **settings)
        assert found == pytest.approx(scale * OTHERS["mkt/short.lr"], rel=1e-9, abs=0)


def test_linear_cosine_without_warm_up_is_that_of_mkts_short_second_stage():
    found = rates("linear-cosine", steps(2, 2), 1e-2, highest=1e-2, warmup=0, floor=1e-8, length=2)
    assert found == pytest.approx(OTHERS["mkt/short2.lr"], rel=1e-9, abs=0)


def test_linear_cosine_may_begin_above_0():
    found = rates("linear-cosine", map(whole, (1, 2, 3, 4)), 2.0, highest=4.0, start=1.0)
    assert found == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_stairs_cosine_is_that_of_biam_in_closed_form():
    expected = [1e-3 / 3, 2e-3 / 3, 1e-3]
    expected += [5e-4 + 2.5e-4 * (1 + math.cos(math.pi * (epoch - 4) / 37)) for epoch in range(4, 41)]
    found = rates("stairs-cosine", map(whole, range(1, 41)), 1e-3, highest=1e-3, floor=5e-4, length=40)
    assert found == pytest.approx(expected, rel=1e-12, abs=0)


def test_one_cycle_is_that_of_ml_decoder_with_beta1():
    found = made("one-cycle", highest=1e-4, warmup=8, start=4e-6, floor=4e-10, length=40)
    lr, beta1 = zip(*(found(period, 1e-4) for period in steps(40, 5)), strict=True)
    assert lr == pytest.approx(ML_DECODER["schedule/lr"], rel=1e-9, abs=0)
    assert beta1 == pytest.approx(ML_DECODER["schedule/beta1"], rel=1e-12, abs=0)


@pytest.mark.parametrize(("pct_start", "div", "final_div", "base"), [(0.2, 25, 1e4, 5e-4), (0.3, 10, 100, 1.0)])
@pytest.mark.parametrize(("epochs", "count"), [(10, 3), (5, 8), (10, 1)])
def test_one_cycle_is_that_of_torch(pct_start, div, final_div, base, epochs, count):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, base, epochs=epochs, steps_per_epoch=count, pct_start=pct_start, div_factor=div,
        final_div_factor=final_div,
    )  # fmt: skip
    settings = {"warmup": pct_start * epochs, "start": 1 / div, "floor": 1 / div / final_div, "length": epochs}
    found = made("one-cycle", **settings)
    for period in steps(epochs, count):
        (group,) = optimizer.param_groups
        assert found(period, base) == pytest.approx((group["lr"], group["betas"][0]), rel=1e-9, abs=0)
        optimizer.step()
        if period != Period(epochs, count - 1, count):
            reference.step()


def test_one_cycle_without_warm_up_begins_just_below_its_peak():
    found = made("one-cycle", warmup=0, start=0.1, length=10)(whole(1), 2.0)
    assert found == pytest.approx((1 + math.cos(math.pi / 10), 0.85 + 0.05 * (1 - math.cos(math.pi / 10))))


@pytest.mark.parametrize("name", IN_PROPORTION)
def test_groups_keep_their_proportion(name):
    found = made(name, highest=0.5, start=0.1, floor=0.01)
    for epoch in (1, 2, 3, 4, 30, 60, 90):
        assert found(whole(epoch), 0.25).lr == pytest.approx(found(whole(epoch), 1.0).lr / 4)
        assert found(whole(epoch), 0.0).lr == 0


@pytest.mark.parametrize("name", IN_PROPORTION)
def test_start_and_floor_above_the_highest_rate_leave_it_constant(name):
    assert rates(name, map(whole, (1, 2, 4, 30, 90)), 2.0, start=9.0, floor=9.0) == pytest.approx([2.0] * 5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_after_its_end_a_rate_stays_at_the_floor(name):
    assert rates(name, map(whole, (70, 90)), 1.0, warmup=2, floor=0.25) == pytest.approx([0.25, 0.25])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_shorter_than_the_warm_up_ends_in_it(name):
    found = rates(name, map(whole, (1, 2)), 1.0, warmup=8, start=0.1, floor=0.1, length=2)
    assert 0.0999 < found[0] <= found[1] < 0.5


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_one_cycle_moves_beta1(name):
    assert (made(name)(whole(1), 1.0).beta1 is not None) == (name == "one-cycle")


def test_a_schedule_that_does_not_exist_is_refused_with_those_that_do():
    names = "cosine, constant-cosine, linear-cosine, stairs-cosine, one-cycle"
    with pytest.raises(ScheduleError, match=f"SOLVER.SCHEDULE must be one of {names}, not 'poly'"):
        made("poly")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_without_length_is_refused(name):
    with pytest.raises(ScheduleError, match=f"positive length of its {name} in epochs, not 0"):
        made(name, length=0)


@pytest.mark.parametrize("name", IN_PROPORTION)
def test_proportions_to_a_rate_of_0_are_refused(name):
    with pytest.raises(ScheduleError, match=f"SOLVER.SCHEDULE {name} takes .* a BASE_LR above 0, not 0.0"):
        made(name, highest=0.0)


@pytest.mark.parametrize("name", ["cosine", "constant-cosine"])
def test_the_others_need_no_highest_rate(name):
    assert made(name, highest=0.0)(whole(30), 1.0) == made(name, highest=1.0)(whole(30), 1.0)
