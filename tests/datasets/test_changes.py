"""Each change against closed forms, Pillow and NumPy."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from datasets import changes
from datasets.changes import Blur, Contrast, Crop, Multiply, Noise, Warp


def picture(height=32, width=48, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def smooth(height=90, width=120):
    return picture(6, 6).resize((width, height), Image.Resampling.BICUBIC)


def grey(level, size=(40, 40)):
    return Image.new("RGB", size, (level,) * 3)


def levels(image):
    return np.asarray(image).astype(np.float64)


def test_contrast_is_127_plus_factor_times_the_difference_rounded_down_and_cut_off():
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    for factor in (0.75, 1.0, 1.25):
        expected = np.floor(np.clip(127 + factor * (np.arange(256) - 127), 0, 255))
        np.testing.assert_array_equal(levels(Contrast(factor)(image))[0], expected[:, None].repeat(3, 1))


def test_brightness_is_a_product_rounded_down_and_cut_off():
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    found = levels(Multiply([1.1, 0.9, 1.0])(image))[0]
    factors = np.float32([1.1, 0.9, 1.0])
    expected = np.minimum(np.arange(256, dtype=np.float32)[:, None] * factors, 255).astype(np.uint8)
    np.testing.assert_array_equal(found, expected)
    assert (levels(Multiply([0.5])(image))[0] == np.arange(256)[:, None] // 2).all()


def test_noise_is_gaussian_in_whole_levels():
    torch.manual_seed(0)
    found = levels(Noise(0.02, 3)(grey(128, (400, 300)))) - 128
    assert found.mean() == pytest.approx(0, abs=4 * 5.1 / math.sqrt(found.size))
    assert found.std() == pytest.approx(math.sqrt(5.1**2 + 1 / 12), rel=0.01)  # rounding adds 1/12
    assert np.mean(np.abs(found) > 2 * 5.1 + 0.5) == pytest.approx(math.erfc((10.5 / 5.1) / math.sqrt(2)), abs=0.003)


def test_noise_has_one_map_or_one_for_each_channel():
    torch.manual_seed(0)
    one, three = (levels(Noise(0.02, maps)(grey(128))) for maps in (1, 3))
    assert (one == one[..., :1]).all()
    assert np.abs(np.corrcoef(three.reshape(-1, 3).T) - np.eye(3)).max() < 4 / 40


def test_noise_of_neighbouring_rows_and_of_all_bands_is_independent():
    torch.manual_seed(0)
    found = levels(Noise(0.03, 1)(grey(128, (50, 3 * changes.BAND + 7))))[..., 0] - 128
    assert len({row.tobytes() for row in found}) == len(found)
    for lag in (1, changes.BAND):
        correlation = np.corrcoef(found[lag:].ravel(), found[:-lag].ravel())[0, 1]
        assert abs(correlation) < 4 / math.sqrt(found[lag:].size)


def test_noise_is_cut_off_at_black_and_white_and_leaves_the_image_alone():
    torch.manual_seed(0)
    for level in (0, 255):
        image = grey(level)
        found = levels(Noise(0.05, 3)(image))
        assert 0.4 < np.mean(found == level) < 0.6
        assert (levels(image) == level).all()


def test_a_crop_is_what_is_left_enlarged():
    image = smooth(100, 200)
    left = image.crop((10, 20, 180, 95)).resize((200, 100), Image.Resampling.BILINEAR)
    found = levels(Crop((0.05, 0.2, 0.1, 0.05))(image))
    assert np.abs(found - levels(left))[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.2499])
def test_a_blur_below_a_quarter_of_a_pixel_changes_no_8_bit_image(sigma):
    checkers = Image.fromarray((np.indices((9, 9)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2))
    assert (levels(Blur(sigma)(checkers)) == levels(checkers)).all()
    if sigma:  # nor would the Gaussian itself, rounded, on the picture that it changes most
        weights = torch.tensor([math.exp(-0.5 * (k / sigma) ** 2) for k in (-1, 0, 1)])
        assert (1 - (weights[1] / weights.sum()) ** 2) * 255 < 0.5


def test_blur_equals_pillows_gaussian_blur():
    expected = levels(smooth().filter(ImageFilter.GaussianBlur(1.5)))
    found = levels(Blur(1.5)(smooth()))
    np.testing.assert_allclose(found[8:-8, 8:-8], expected[8:-8, 8:-8], atol=2)  # Pillow's is three box blurs


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_blur_takes_images_smaller_than_its_kernel(size):
    assert Blur(30.0)(picture(*size)).size == size[::-1]


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
    assert expected.tolist() == moved(Warp(scale, shift, angle)(Image.fromarray(dot)), x, y)


def test_warp_by_nothing_is_the_image():
    image = picture()
    np.testing.assert_allclose(levels(Warp((1, 1), (0, 0), 0)(image)), levels(image), atol=1)


def test_what_a_shift_leaves_free_is_black():
    found = levels(Warp((1, 1), (0.1, -0.2), 0)(grey(255, (100, 50))))[..., 0]
    assert (found[:, :10] == 0).all()
    assert (found[-10:] == 0).all()
    assert (found[:39, 11:] == 255).all()
