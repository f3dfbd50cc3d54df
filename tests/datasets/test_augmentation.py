"""The six operators against closed forms, and all of them together against the statistics of the release."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from torchvision.transforms import InterpolationMode, v2

from configs import load_config
from datasets import augmentation
from datasets.augmentation import Augmentation, add_noise, blur, crop_sides, multiply, stretch_contrast, warp

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
    augment.operators = tuple(lambda image, k=k: image + (k,) for k in range(6))
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


def test_contrast_is_127_plus_factor_times_the_difference_rounded_down_and_cut_off():
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    for factor in (0.75, 1.0, 1.25):
        expected = np.floor(np.clip(127 + factor * (np.arange(256) - 127), 0, 255))
        np.testing.assert_array_equal(levels(stretch_contrast(image, factor))[0], expected[:, None].repeat(3, 1))


def test_contrast_factors_are_uniform_in_their_range():
    found = draws(600, grey(227), prob=1.0, contrast=(0.75, 1.25))[:, 0, 0, 0]  # 127 + 100 factor
    assert (found.min(), found.max()) == (pytest.approx(202, abs=2), pytest.approx(252, abs=2))
    assert found.mean() == pytest.approx(226.5, abs=4 * 50 / math.sqrt(12 * 600))


def test_brightness_is_a_product_rounded_down_and_cut_off():
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    found = levels(multiply(image, [1.1, 0.9, 1.0]))[0]
    factors = np.float32([1.1, 0.9, 1.0])
    expected = np.minimum(np.arange(256, dtype=np.float32)[:, None] * factors, 255).astype(np.uint8)
    np.testing.assert_array_equal(found, expected)
    assert (levels(multiply(image, [0.5]))[0] == np.arange(256)[:, None] // 2).all()


def test_brightness_differs_between_channels_at_the_given_rate():
    found = draws(1000, grey(200), multiply=(0.9, 1.1), per_channel=0.2)[:, 0, 0]
    assert found.min() >= 180
    assert found.max() <= 220
    alone = np.ptp(found, axis=1) > 0  # three equal draws after rounding: one in 1,600
    assert alone.mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 1000))
    correlation = np.corrcoef(found[alone].T)[~np.eye(3, dtype=bool)]
    assert np.abs(correlation).max() < 4 / math.sqrt(alone.sum())


def test_noise_is_gaussian_in_whole_levels():
    torch.manual_seed(0)
    found = levels(add_noise(grey(128, (400, 300)), 0.02, maps=3)) - 128
    assert found.mean() == pytest.approx(0, abs=4 * 5.1 / math.sqrt(found.size))
    assert found.std() == pytest.approx(math.sqrt(5.1**2 + 1 / 12), rel=0.01)  # rounding adds 1/12
    assert np.mean(np.abs(found) > 2 * 5.1 + 0.5) == pytest.approx(math.erfc((10.5 / 5.1) / math.sqrt(2)), abs=0.003)


def test_noise_has_one_map_or_one_for_each_channel():
    torch.manual_seed(0)
    one, three = (levels(add_noise(grey(128), 0.02, maps=maps)) for maps in (1, 3))
    assert (one == one[..., :1]).all()
    assert np.abs(np.corrcoef(three.reshape(-1, 3).T) - np.eye(3)).max() < 4 / 40


def test_noise_of_neighbouring_rows_and_of_all_bands_is_independent():
    torch.manual_seed(0)
    found = levels(add_noise(grey(128, (50, 3 * augmentation.BAND + 7)), 0.03, maps=1))[..., 0] - 128
    assert len({row.tobytes() for row in found}) == len(found)
    for lag in (1, augmentation.BAND):
        correlation = np.corrcoef(found[lag:].ravel(), found[:-lag].ravel())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(found[lag:].size)


def test_noise_is_cut_off_at_black_and_white_and_leaves_the_image_alone():
    torch.manual_seed(0)
    for level in (0, 255):
        image = grey(level)
        found = levels(add_noise(image, 0.05, maps=3))
        assert 0.4 < np.mean(found == level) < 0.6
        assert (levels(image) == level).all()


def test_noise_has_a_standard_deviation_uniform_up_to_the_largest_and_maps_at_the_given_rate():
    found = draws(500, grey(128), noise=0.1, per_channel=0.2)
    deviations = found.std((1, 2, 3))
    assert deviations.max() < 25.5 * 1.08
    assert deviations.mean() == pytest.approx(25.5 / 2, abs=4 * 25.5 / math.sqrt(12 * 500))
    alone = [(copy != copy[..., :1]).any() for copy in found]
    assert np.mean(alone) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 500))


def test_a_crop_is_what_is_left_enlarged():
    image = smooth(100, 200)
    left = image.crop((10, 20, 180, 95)).resize((200, 100), Image.Resampling.BILINEAR)
    found = levels(crop_sides(image, (0.05, 0.2, 0.1, 0.05)))
    assert np.abs(found - levels(left))[2:-2, 2:-2].max() <= 1


def test_sides_are_cut_by_themselves_up_to_the_fraction():
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100), np.arange(100)[:, None]
    found = draws(400, Image.fromarray(ramp), prob=1.0, crop=0.1)[..., :2]
    cuts = np.stack([found[:, 50, 0, 0], 99 - found[:, 50, -1, 0], found[:, 0, 50, 1], 99 - found[:, -1, 50, 1]], 1)
    assert cuts.max() <= 10
    assert cuts.max() >= 9
    np.testing.assert_allclose(cuts.mean(0), 5, atol=4 * 10 / math.sqrt(12 * 400) + 0.5)  # and half a level
    assert np.abs(np.corrcoef(cuts.T) - np.eye(4)).max() < 4 / math.sqrt(400)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2499])
def test_a_blur_below_a_quarter_of_a_pixel_changes_no_8_bit_image(sigma):
    checkers = Image.fromarray((np.indices((9, 9)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2))
    assert (levels(blur(checkers, sigma)) == levels(checkers)).all()
    if sigma:  # nor would the Gaussian itself, rounded, on the picture that it changes most
        weights = torch.tensor([math.exp(-0.5 * (k / sigma) ** 2) for k in (-1, 0, 1)])
        assert (1 - (weights[1] / weights.sum()) ** 2) * 255 < 0.5


def test_blur_equals_pillows_gaussian_blur():
    expected = levels(smooth().filter(ImageFilter.GaussianBlur(1.5)))
    found = levels(blur(smooth(), 1.5))
    np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], atol=2)  # Pillow's is three box blurs


def test_blur_is_drawn_up_to_the_largest_sigma():
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    found = draws(200, Image.fromarray(point), prob=1.0, blur=2.0)[:, 20, 20, 0]
    assert found.max() == 255  # hardly any
    assert found.min() == pytest.approx(255 / (2 * math.pi * 2**2), abs=2)  # sigma 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_blur_takes_images_smaller_than_its_kernel(size):
    assert blur(picture(*size), 30.0).size == size[::-1]


def moved(image, x, y):
    """Where the white dot at (x, y) of a black image of 101 x 81 goes."""
    where = np.argwhere(levels(image)[..., 0] > 60)
    return pytest.approx(where.mean(0)[::-1].tolist(), abs=0.6) if len(where) else (x, y)


@pytest.mark.parametrize(
    ("scale", "shift", "angle"),
    [((1.1, 0.9), (0, 0), 0), ((1, 1), (0.1, -0.05), 0), ((1, 1), (0, 0), 10), ((0.5, 1.8), (-0.1, 0.1), 40)],
)
def test_warp_scales_then_turns_about_the_centre_then_shifts(scale, shift, angle):
    width, height, (x, y) = 101, 81, (70, 30)
    dot = np.zeros((height, width, 3), np.uint8)
    dot[y - 1 : y + 2, x - 1 : x + 2] = 255
    t = math.radians(angle)
    forward = np.array([[math.cos(t), -math.sin(t)], [math.sin(t), math.cos(t)]]) @ np.diag(scale)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])  # of pixel indices
    expected = forward @ (np.array([x, y]) - centre) + centre + np.array(shift) * [width, height]
    assert expected.tolist() == moved(warp(Image.fromarray(dot), scale=scale, shift=shift, angle=angle), x, y)


def test_warp_by_nothing_is_the_image():
    image = picture()
    np.testing.assert_allclose(levels(warp(image, scale=(1, 1), shift=(0, 0), angle=0)), levels(image), atol=1)


def test_what_a_shift_leaves_free_is_black():
    found = levels(warp(grey(255, (100, 50)), scale=(1, 1), shift=(0.1, -0.2), angle=0))[..., 0]
    assert (found[:, :10] == 0).all()
    assert (found[-10:] == 0).all()
    assert (found[:39, 11:] == 255).all()


def test_scales_shifts_and_angles_are_drawn_independently_in_their_ranges(monkeypatch):
    drawn = []

    def record(image, *, scale, shift, angle):
        drawn.append([*scale, *shift, angle])
        return image

    monkeypatch.setattr(augmentation, "warp", record)
    draws(1000, picture(), prob=1.0, affine=0.1, rotation=10.0)
    drawn = np.array(drawn)
    np.testing.assert_allclose(drawn.min(0), [0.9, 0.9, -0.1, -0.1, -10], rtol=0.02)
    np.testing.assert_allclose(drawn.max(0), [1.1, 1.1, 0.1, 0.1, 10], rtol=0.02)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 4 / math.sqrt(1000)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2)])
def test_images_of_extreme_shapes_pass_with_every_operator_on(size):
    strong = {"prob": 1.0, "crop": 0.499, "blur": 5.0, "contrast": (0.5, 2.0), "affine": 0.9, "rotation": 180.0}
    assert draws(20, picture(*size), **strong, noise=0.1, multiply=(0.5, 2.0), per_channel=0.5).shape == (20, *size, 3)
