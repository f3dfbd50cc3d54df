"""What is drawn, and all six changes together against the statistics of the release."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import InterpolationMode, v2

from configs import load_config
from datasets import augmentation
from datasets.augmentation import Augmentation

RELEASE = json.loads((Path(__file__).parents[1] / "data" / "release_augmentation.json").read_text())
OFF = {
    "prob": 0.0, "crop": 0.0, "blur": 0.0, "contrast": (1.0, 1.0), "affine": 0.0, "rotation": 0.0, "noise": 0.0,
    "multiply": (1.0, 1.0), "per_channel": 0.0,
}  # fmt: skip
DEFAULTS = load_config().INPUT
ON = {
    "prob": DEFAULTS.AUG_PROB, "crop": DEFAULTS.CROP, "blur": DEFAULTS.BLUR, "contrast": DEFAULTS.CONTRAST,
    "affine": DEFAULTS.AFFINE, "rotation": DEFAULTS.ROTATION, "noise": DEFAULTS.NOISE, "multiply": DEFAULTS.MULTIPLY,
    "per_channel": DEFAULTS.PER_CHANNEL,
}  # fmt: skip
DRAWS = 1000


def picture(height=32, width=48, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def smooth(height=90, width=120):
    return picture(6, 6).resize((width, height), Image.Resampling.BICUBIC)


def grey(level, size=(40, 40)):
    return Image.new("RGB", size, (level,) * 3)


def levels(image):
    return np.asarray(image).astype(np.float64)


def draws(count, image, **on):
    torch.manual_seed(0)
    augment = Augmentation(**OFF | on)
    return np.stack([levels(augment(image)) for _ in range(count)])


@pytest.fixture(scope="module")
def release_draws():
    """What was measured on the release: 1,000 copies at 224 x 224 beside the picture itself, levels of 0 to 255."""
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    resize = v2.Compose([v2.PILToTensor(), v2.Resize((224, 224), InterpolationMode.BICUBIC, antialias=True)])
    torch.manual_seed(1)
    augment = Augmentation(**ON)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker; tensors of this size do not repay a second one
    copies = torch.stack([resize(augment(photograph)) for _ in range(DRAWS)]).float()
    torch.set_num_threads(threads)
    shift = (copies - resize(photograph)).mean((2, 3))  # (I, 3)
    brightness = shift.mean(1)
    return {
        "mean_abs_change": (copies - resize(photograph)).abs().mean((1, 2, 3)).div(255),
        "brightness_shift": brightness,
        "colour_cast": (shift - brightness[:, None]).abs().amax(1),
        "fraction_white": (copies == 255).flatten(1).float().mean(1),
        "fraction_black": (copies == 0).flatten(1).float().mean(1),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "statistic", ["mean_abs_change", "brightness_shift", "colour_cast", "fraction_white", "fraction_black"]
)
def test_the_share_below_each_percentile_of_the_release_is_that_percentile(release_draws, statistic):
    # Both sides are shares of 1,000 independent draws: binomial errors, four of them. A value that many draws share, as
    # the rounded 0.0, is a range of shares.
    found = release_draws[statistic].numpy()
    step = 0.5 * 10.0 ** -max(len(str(v).partition(".")[2]) for v in RELEASE[statistic])  # the file's rounding
    for percentile, value in zip(RELEASE["percentiles"], RELEASE[statistic], strict=True):
        share = percentile / 100
        tolerance = 4 * math.sqrt(2 * share * (1 - share) / DRAWS)
        assert (found < value - step).mean() <= share + tolerance, percentile
        assert (found <= value + step).mean() >= share - tolerance, percentile


@pytest.mark.slow
def test_means_and_shares_are_those_of_the_release(release_draws):
    change, white = release_draws["mean_abs_change"], release_draws["fraction_white"]
    cast = (release_draws["colour_cast"] > 3).float()
    for found, expected in (
        (change, RELEASE["mean_abs_change_mean"]),
        (white, RELEASE["mean_fraction_white"]),
        (cast, RELEASE["share_colour_cast_above_3"]),
    ):
        assert abs(found.mean().item() - expected) < 4 * found.std().item() * math.sqrt(2 / DRAWS)


def test_without_strength_nothing_changes():
    assert (draws(20, picture(), prob=1.0) == levels(picture())).all()


def test_everything_depends_on_torchs_seed_alone():
    first = draws(8, smooth(), **ON)
    np.random.seed(1)  # noqa: NPY002 - the global state is the point
    assert (first == draws(8, smooth(), **ON)).all()
    assert len({copy.tobytes() for copy in first}) == 8


def test_operators_come_in_every_order():
    seen = set()
    augment = Augmentation(**OFF)
    augment.operators = tuple(lambda k=k: lambda image: image + (k,) for k in range(6))
    torch.manual_seed(0)
    for _ in range(6000):
        seen.add(augment(()))
    assert len(seen) == math.factorial(6)


@pytest.mark.parametrize(
    "strength", [{"crop": 0.4}, {"blur": 3.0}, {"contrast": (0.4, 0.5)}, {"affine": 0.3}, {"rotation": 90.0}]
)
def test_four_operators_happen_at_the_given_probability(strength):
    image = smooth(16, 16)
    changed = (draws(600, image, prob=0.3, **strength) != levels(image)).any((1, 2, 3))
    assert changed.mean() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 600) + 0.01)  # weak draws change nothing


def test_noise_and_brightness_do_not_wait_for_the_probability():
    assert (draws(20, grey(100), prob=0.0, multiply=(0.5, 0.5)) == 50).all()
    assert draws(20, grey(100), prob=0.0, noise=0.1).std((1, 2, 3)).min() > 0


def test_contrast_factors_are_uniform_in_their_range():
    found = draws(600, grey(227), prob=1.0, contrast=(0.75, 1.25))[:, 0, 0, 0]  # 127 + 100 factor
    assert (found.min(), found.max()) == (pytest.approx(202, abs=2), pytest.approx(252, abs=2))
    assert found.mean() == pytest.approx(226.5, abs=4 * 50 / math.sqrt(12 * 600))


def test_brightness_differs_between_channels_at_the_given_rate():
    found = draws(1000, grey(200), multiply=(0.9, 1.1), per_channel=0.2)[:, 0, 0]
    assert found.min() >= 180
    assert found.max() <= 220
    alone = np.ptp(found, axis=1) > 0  # three equal draws after rounding: one in 1,600
    assert alone.mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 1000))
    correlation = np.corrcoef(found[alone].T)[~np.eye(3, dtype=bool)]
    assert np.abs(correlation).max() < 4 / math.sqrt(alone.sum())


def test_noise_has_a_standard_deviation_uniform_up_to_the_largest_and_maps_at_the_given_rate():
    found = draws(500, grey(128), noise=0.1, per_channel=0.2)
    deviations = found.std((1, 2, 3))
    assert deviations.max() < 25.5 * 1.08
    assert deviations.mean() == pytest.approx(25.5 / 2, abs=4 * 25.5 / math.sqrt(12 * 500))
    alone = [(copy != copy[..., :1]).any() for copy in found]
    assert np.mean(alone) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 500))


def test_sides_are_cut_by_themselves_up_to_the_fraction():
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100), np.arange(100)[:, None]
    found = draws(400, Image.fromarray(ramp), prob=1.0, crop=0.1)[..., :2]
    cuts = np.stack([found[:, 50, 0, 0], 99 - found[:, 50, -1, 0], found[:, 0, 50, 1], 99 - found[:, -1, 50, 1]], 1)
    assert cuts.max() <= 10
    assert cuts.max() >= 9
    np.testing.assert_allclose(cuts.mean(0), 5, atol=4 * 10 / math.sqrt(12 * 400) + 0.5)  # and half a level
    assert np.abs(np.corrcoef(cuts.T) - np.eye(4)).max() < 4 / math.sqrt(400)


def test_blur_is_drawn_up_to_the_largest_sigma():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    found = draws(200, Image.fromarray(point), prob=1.0, blur=2.0)[:, 20, 20, 0]
    assert found.max() == 255  # hardly any
    assert found.min() == pytest.approx(255 / (2 * math.pi * 2**2), abs=2)  # sigma 2


def test_scales_shifts_and_angles_are_drawn_independently_in_their_ranges(monkeypatch):
    drawn = []

    def record(scale, shift, angle):
        drawn.append([*scale, *shift, angle])
        return lambda image: image

    monkeypatch.setattr(augmentation, "Warp", record)
    draws(1000, picture(), prob=1.0, affine=0.1, rotation=10.0)
    drawn = np.array(drawn)
    np.testing.assert_allclose(drawn.min(0), [0.9, 0.9, -0.1, -0.1, -10], rtol=0.02)
    np.testing.assert_allclose(drawn.max(0), [1.1, 1.1, 0.1, 0.1, 10], rtol=0.02)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 4 / math.sqrt(1000)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2)])
def test_images_of_extreme_shapes_pass_with_every_operator_on(size):
    strong = {"prob": 1.0, "crop": 0.499, "blur": 5.0, "contrast": (0.5, 2.0), "affine": 0.9, "rotation": 180.0}
    assert draws(20, picture(*size), **strong, noise=0.1, multiply=(0.5, 2.0), per_channel=0.5).shape == (20, *size, 3)
