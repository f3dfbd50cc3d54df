import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from datasets import transforms
from datasets.records import DataError

OFF = {
    "size": (32, 48), "flip": 0.0, "erase": 0.0, "padding": 0, "aug_prob": 0.0, "crop": 0.0, "blur": 0.0,
    "contrast": (1.0, 1.0), "affine": 0.0, "noise": 0.0, "multiply": (1.0, 1.0), "mean": (0, 0, 0), "std": (1, 1, 1),
}  # fmt: skip
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def train(**on):
    return transforms.train_transform(**OFF | on)


def picture(height=32, width=48, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def smooth(height=90, width=120):
    return picture(6, 6).resize((width, height), Image.Resampling.BICUBIC)


def to_numpy(image, mean=(0, 0, 0), std=(1, 1, 1)):
    return ((np.asarray(image, dtype=np.float64) / 255 - mean) / std).transpose(2, 0, 1)


def draws(transform, image, count):
    torch.manual_seed(0)
    return torch.stack([transform(image) for _ in range(count)])


def test_test_transform_equals_pillow_and_numpy():
    image = picture(61, 83)
    expected = to_numpy(image.resize((48, 32), Image.Resampling.BILINEAR), MEAN, STD)
    found = transforms.test_transform(size=(32, 48), mean=MEAN, std=STD)(image)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_training_without_augmentation_is_a_bicubic_resize_and_normalisation():
    image = smooth()
    expected = to_numpy(image.resize((48, 32), Image.Resampling.BICUBIC), MEAN, STD)
    found = train(mean=MEAN, std=STD)(image)
    assert (found.dtype, found.shape) == (torch.float32, (3, 32, 48))
    np.testing.assert_allclose(found, expected, atol=1.01 / 255 / 0.2)  # one grey level


def test_training_does_not_change_an_image_of_the_right_size():
    np.testing.assert_allclose(train()(picture()), to_numpy(picture()), atol=1e-6)


def test_all_augmentations_together_depend_on_torchs_seed_alone():
    on = train(flip=0.5, erase=0.5, padding=4, aug_prob=0.5, crop=0.1, blur=0.2, contrast=(0.7, 1.5), affine=0.1,
               noise=0.05, multiply=(0.9, 1.1))  # fmt: skip
    first = draws(on, smooth(), 10)
    np.random.seed(1)  # noqa: NPY002 - the global state is the point
    assert torch.equal(first, draws(on, smooth(), 10))
    assert len({tuple(x.flatten().tolist()) for x in first}) == 10


def test_transforms_can_be_sent_to_workers():
    for transform in (train(noise=0.1), transforms.test_transform(size=(8, 8), mean=MEAN, std=STD)):
        again = pickle.loads(pickle.dumps(transform))
        assert torch.equal(draws(again, picture(), 1), draws(transform, picture(), 1))


def test_images_are_flipped_at_the_given_rate():
    mirrored = to_numpy(picture())[:, :, ::-1]
    flipped = [np.allclose(x, mirrored, atol=1e-6) for x in draws(train(flip=0.3), picture(), 600)]
    assert np.mean(flipped) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 600))


def test_augmentations_happen_at_the_given_rate():
    changed = [not np.allclose(x, to_numpy(picture()), atol=1e-6)
               for x in draws(train(aug_prob=0.2, contrast=(2.0, 2.0)), picture(), 600)]  # fmt: skip
    assert np.mean(changed) == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 600))


def test_crops_take_up_to_the_fraction_off_each_side_independently():
    rows, columns = torch.meshgrid(torch.arange(200), torch.arange(100), indexing="ij")
    torch.manual_seed(0)
    cuts = []
    for _ in range(500):
        kept = transforms._crop_sides(torch.stack([rows, columns]), most=0.1)
        cuts.append([kept[0].min(), 199 - kept[0].max(), kept[1].min(), 99 - kept[1].max()])
    cuts = np.array(cuts) / [200, 200, 100, 100]
    assert cuts.min() == 0
    assert 0.085 < cuts.max() < 0.1
    np.testing.assert_allclose(cuts.mean(0), 0.0475, atol=0.006)  # whole pixels, rounded down
    assert np.abs(np.corrcoef(cuts.T) - np.eye(4)).max() < 0.2


def test_a_crop_leaves_at_least_one_pixel():
    torch.manual_seed(0)
    assert all(transforms._crop_sides(torch.zeros(3, 1, 2), most=0.499).numel() for _ in range(200))


def test_blur_equals_pillows_gaussian_blur(monkeypatch):
    monkeypatch.setattr(transforms, "_uniform", lambda low, high: (low + high) / 2)
    expected = np.asarray(smooth().filter(ImageFilter.GaussianBlur(1.5)), dtype=float).transpose(2, 0, 1)
    pixels = torch.from_numpy(np.array(smooth())).permute(2, 0, 1).float()
    found = transforms._blur(pixels, most=3.0).numpy()
    np.testing.assert_allclose(found[:, 8:-8, 8:-8], expected[:, 8:-8, 8:-8], atol=2)  # Pillow's is three box blurs


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 9e-4])
def test_blur_with_a_vanishing_sigma_changes_nothing(sigma):
    pixels = torch.rand(3, 5, 5)
    assert torch.equal(transforms._blur(pixels, most=sigma), pixels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2)])
def test_blur_takes_images_smaller_than_its_kernel(shape):
    torch.manual_seed(0)
    assert transforms._blur(torch.rand(3, *shape), most=30.0).shape == (3, *shape)


def test_blur_keeps_the_mean_of_a_constant_image():
    torch.manual_seed(0)
    assert torch.allclose(transforms._blur(torch.full((3, 9, 9), 7.0), most=2.0), torch.tensor(7.0))


def test_contrast_stretches_about_mid_grey_and_clips():
    pixels = torch.tensor([0.0, 100.0, 127.5, 140.0, 255.0])
    found = transforms._contrast(pixels, factors=(1.5, 1.5))
    assert found.tolist() == [0.0, 86.25, 127.5, 146.25, 255.0]


def test_noise_has_a_standard_deviation_uniform_up_to_the_largest():
    torch.manual_seed(0)
    grey = torch.full((3, 40, 40), 128.0)
    deviations = [(transforms._add_noise(grey, most=0.1) - grey).std().item() for _ in range(400)]
    assert max(deviations) < 0.1 * 255 * 1.05
    assert np.mean(deviations) == pytest.approx(0.05 * 255, rel=0.1)
    assert np.std(deviations) == pytest.approx(0.1 * 255 / math.sqrt(12), rel=0.15)


def test_noise_differs_between_channels():
    torch.manual_seed(0)
    found = transforms._add_noise(torch.full((3, 20, 20), 128.0), most=0.1)
    assert not torch.equal(found[0], found[1])


def test_brightness_factors_are_uniform_in_their_range_and_common_to_all_pixels():
    torch.manual_seed(0)
    found = torch.stack([transforms._multiply(torch.full((3, 2, 2), 100.0), factors=(0.9, 1.1)) for _ in range(500)])
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))
    assert found.min() >= 90
    assert found.max() <= 110
    assert found.mean().item() == pytest.approx(100, abs=1)
    assert found[:, 0, 0, 0].std().item() == pytest.approx(20 / math.sqrt(12), rel=0.1)


def test_pixels_are_rounded_and_not_cut_off():
    found = train(multiply=(0.999, 0.999))(Image.new("RGB", (48, 32), (100, 200, 7)))
    assert (found[:, 0, 0] * 255).round().tolist() == [100, 200, 7]


def test_affine_moves_and_scales_by_at_most_the_fraction():
    white = Image.new("RGB", (100, 100), "white")
    on = train(size=(100, 100), aug_prob=1.0, affine=0.1)
    kept = draws(on, white, 200)[:, 0] > 0.5
    shown = kept.flatten(1).float().mean(1)  # black comes in from the sides
    assert 0.6 < shown.min() < 0.8  # smallest: scale 0.9 and a shift of 0.1 both ways, 0.85 squared
    assert shown.max() == 1
    assert kept[:, 15:-15, 15:-15].all()


def test_padding_is_black_and_every_offset_of_the_crop_occurs():
    white = Image.new("RGB", (16, 16), "white")
    found = draws(train(size=(16, 16), padding=2, mean=(0.5,) * 3, std=(0.5,) * 3), white, 300)[:, 0]
    assert set(found.unique().tolist()) == {-1.0, 1.0}
    offsets = {(int((x[8] < 0).sum()), int((x[:, 8] < 0).sum()), bool(x[0, 8] < 0), bool(x[8, 0] < 0)) for x in found}
    assert len(offsets) == 25  # rows and columns of black: 0, 1 or 2, on either side


def test_erasing_puts_standard_normal_noise_into_a_rectangle_of_normalised_pixels():
    flat = Image.new("RGB", (64, 64))  # -2 everywhere after normalising
    found = draws(train(size=(64, 64), erase=1.0, mean=(0.5,) * 3, std=(0.25,) * 3), flat, 200)
    erased = found != -2
    values = found[erased]
    assert values.mean().item() == pytest.approx(0, abs=0.02)
    assert values.std().item() == pytest.approx(1, abs=0.02)
    for mask in erased.any(1):
        rows, columns = mask.any(1).sum().item(), mask.any(0).sum().item()
        assert mask.sum() == rows * columns
        assert 0.015 < rows * columns / 64**2 < 0.34
        assert 0.27 < rows / columns < 3.7


def test_images_are_erased_at_the_given_rate():
    flat = Image.new("RGB", (16, 16))
    erased = draws(train(size=(16, 16), erase=0.5), flat, 600).flatten(1).any(1).float().mean().item()
    assert erased == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 600))


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2)])
def test_images_of_extreme_shapes_pass_with_every_augmentation_on(size):
    on = train(size=(8, 8), flip=1.0, erase=1.0, padding=2, aug_prob=1.0, crop=0.1, blur=5.0, contrast=(0.5, 2.0),
               affine=0.1, noise=0.1, multiply=(0.9, 1.1))  # fmt: skip
    found = draws(on, picture(*size), 20)
    assert found.shape == (20, 3, 8, 8)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("key", "argument", "value"),
    [
        ("PROB", "flip", 1.5), ("RE_PROB", "erase", -0.1), ("AUG_PROB", "aug_prob", 2.0), ("PADDING", "padding", -1),
        ("BLUR", "blur", -1.0), ("NOISE", "noise", -0.1), ("CROP", "crop", 0.5), ("AFFINE", "affine", 1.0),
        ("CONTRAST", "contrast", (1.5, 0.5)), ("CONTRAST", "contrast", (1.0,)), ("MULTIPLY", "multiply", (-1.0, 1.0)),
        ("SIZE_TRAIN", "size", (0, 8)), ("SIZE_TRAIN", "size", (8,)), ("PIXEL_MEAN", "mean", (0.5,)),
        ("PIXEL_STD", "std", (0.5, 0.0, 0.5)), ("PIXEL_STD", "std", (0.5, 0.5)),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_an_error_naming_key_and_value(key, argument, value):
    with pytest.raises(DataError) as caught:
        train(**{argument: value})
    assert f"INPUT.{key}" in str(caught.value)
    assert str(value) in str(caught.value)


def test_the_test_transform_checks_its_values_too():
    with pytest.raises(DataError, match=r"INPUT\.PIXEL_STD"):
        transforms.test_transform(size=(8, 8), mean=MEAN, std=(0, 1, 1))
