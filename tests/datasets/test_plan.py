import itertools
import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from datasets.changes import Blur, Contrast, Crop, Multiply, Noise, Warp
from datasets.plan import STAGE_OF, Drawn, Plan, rounds

CROP, BLUR, CONTRAST = Crop((0.1, 0.0, 0.05, 0.1)), Blur(1.0), Contrast(1.25)
NOISE, MULTIPLY, WARP = Noise(0.02, 3), Multiply([0.75]), Warp((1.1, 0.9), (0.1, -0.1), 10.0)
ALL = (CROP, BLUR, CONTRAST, NOISE, MULTIPLY, WARP)


def drawn(*changes, size=(64, 48), flip=False, corner=(0, 0), erased=(0, 0, 0, 0), seed=1):
    return Drawn(changes, size, flip, *corner, erased, seed)


@pytest.mark.parametrize(
    ("changes", "count"),
    [((), 0), ((MULTIPLY, NOISE), 1), ((NOISE, MULTIPLY), 2), ((CONTRAST, MULTIPLY, NOISE, WARP, BLUR), 1),
     ((CROP, WARP), 2), ((BLUR, WARP, NOISE, CONTRAST), 4)],
)  # fmt: skip
def test_a_round_takes_what_comes_in_its_order(changes, count):
    assert len(rounds(changes)) == count


def test_rounds_keep_every_order_and_begin_anew_only_where_they_must():
    for order in itertools.permutations(ALL):
        parts = rounds(order)
        assert tuple(change for part in parts for change in part) == order
        for part in parts:
            assert sorted(part, key=lambda change: STAGE_OF[type(change)]) == part
        for before, after in itertools.pairwise(parts):
            stages = STAGE_OF[type(before[-1])], STAGE_OF[type(after[0])]
            assert stages[0] > stages[1] or stages[0] == stages[1] > 0


def test_levels_of_changes_that_follow_upon_each_other_are_one_after_the_other():
    plan = Plan.of([drawn(CONTRAST, MULTIPLY), drawn(MULTIPLY, CONTRAST)], (8, 8))
    contrast = np.floor(np.clip(127 + 1.25 * (np.arange(256) - 127), 0, 255)).astype(int)
    darker = np.arange(256) * 3 // 4
    assert (plan.levels[0, 0].numpy() == darker[contrast]).all()
    assert (plan.levels[1, 0].numpy() == contrast[darker]).all()


def test_what_an_image_does_not_have_leaves_it_as_it_is():
    plan = Plan.of([drawn(NOISE, MULTIPLY, WARP), drawn()], (8, 8))
    assert (plan.levels[1] == torch.arange(256)).all()
    assert plan.deviations[1].tolist() == [0, 0]
    assert plan.inverses[1].tolist() == [[1, 0, 0, 0, 1, 0]] * 2
    assert plan.used == [[False, True, False, False], [True, False, True, False]]


@pytest.mark.parametrize(("full", "small"), [((200, 150), (64, 48)), ((90, 40), (30, 100)), ((64, 48), (64, 48))])
def test_of_the_noise_as_much_is_left_as_a_resize_leaves(full, small):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(30, *full[::-1], generator=generator)
    resize = v2.Resize(small[::-1], InterpolationMode.BICUBIC, antialias=True)
    left = Plan.of([drawn(Noise(1.0, 1), size=full)], small).deviations.item()
    assert left == pytest.approx(resize(noise).std().item(), rel=0.03)


@pytest.mark.parametrize("change", [CROP, WARP])
def test_a_point_comes_from_where_it_came_from_before_the_resize(change):
    full, small, point = (640, 427), (224, 160), np.array([100.0, 30.0, 1])
    ratio = np.array(small) / np.array(full)
    in_full = np.array(change.inverse(*full)).reshape(2, 3) @ np.array([*(point[:2] / ratio), 1])
    found = Plan.of([drawn(change, size=full)], small).inverses[0, 0].double().numpy().reshape(2, 3) @ point
    np.testing.assert_allclose(found, in_full * ratio, rtol=1e-5)


def test_a_blur_shrinks_with_the_image():
    (blur,) = Plan.of([drawn(), drawn(CONTRAST, BLUR, size=(640, 480))], (224, 240)).blurs
    assert blur == (0, 1, (pytest.approx(0.35), pytest.approx(0.5)))


def test_an_image_has_the_same_plan_alone_and_among_others():
    images = [drawn(*ALL, seed=3, flip=True, corner=(-2, 3)), drawn(NOISE, erased=(1, 2, 3, 4)), drawn()]
    whole = Plan.of(images, (20, 20))
    for i, image in enumerate(images):
        alone = Plan.of([image], (20, 20))
        count = len(alone.used)
        for name in ("levels", "deviations", "inverses"):
            assert torch.equal(getattr(whole, name)[i, :count], getattr(alone, name)[0])
        for name in ("channelwise", "flips", "corners", "erased"):
            assert torch.equal(getattr(whole, name)[i], getattr(alone, name)[0])
        assert whole.seeds[i] == alone.seeds[0]


def test_a_plan_moves_with_all_its_tensors():
    moved = Plan.of([drawn(*ALL)], (8, 8)).to(torch.device("meta"))
    assert {value.device.type for value in moved if isinstance(value, torch.Tensor)} == {"meta"}
    assert math.isclose(moved.blurs[0][2][0], 1 / 8)
