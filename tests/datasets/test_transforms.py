import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import transforms
from datasets.records import DataError

OFF = {
    "size": (32, 48), "flip": 0.0, "erase": 0.0, "padding": 0, "aug_prob": 0.0, "crop": 0.0, "blur": 0.0,
    "contrast": (1.0, 1.0), "affine": 0.0, "rotation": 0.0, "noise": 0.0, "multiply": (1.0, 1.0), "per_channel": 0.0,
    "mean": (0, 0, 0), "std": (1, 1, 1),
}  # fmt: skip
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def train(**on):
    return transforms.in_workers(transforms.training_steps(**OFF | on))


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
               rotation=10.0, noise=0.05, multiply=(0.9, 1.1), per_channel=0.5)  # fmt: skip
    first = draws(on, smooth(), 10)
    np.random.seed(1)  # noqa: NPY002 - the global state is the point
    assert torch.equal(first, draws(on, smooth(), 10))
    assert len({tuple(x.flatten().tolist()) for x in first}) == 10


def test_transforms_can_be_sent_to_workers():
    for transform in (train(noise=0.1), transforms.test_transform(size=(8, 8), mean=MEAN, std=STD)):
        again = pickle.loads(pickle.dumps(transform))
        assert torch.equal(draws(again, picture(), 1), draws(transform, picture(), 1))


@pytest.mark.parametrize("argument", ["crop", "blur", "affine", "rotation"])
def test_each_strength_of_the_augmentation_is_handed_on(argument):
    image, strength = smooth(), {"crop": 0.4, "blur": 5.0, "affine": 0.5, "rotation": 90.0}
    plain = train()(image)
    found = draws(train(aug_prob=1.0, **{argument: strength[argument]}), image, 5)
    assert not torch.allclose(found, plain.expand_as(found), atol=0.1)


def test_noise_and_brightness_and_their_channels_are_handed_on():
    flat = Image.new("RGB", (48, 32), (100, 100, 100))
    noisy = draws(train(noise=0.2), flat, 5)
    assert noisy.std((1, 2, 3)).max() > 0.02
    assert (noisy == noisy[:, :1]).all()
    bright = draws(train(multiply=(0.5, 0.9), per_channel=1.0), flat, 5)
    assert (bright[:, 0] != bright[:, 1]).any()


def test_flipping_after_the_resize_gives_the_pixels_of_flipping_before_it():
    image = smooth(61, 83)
    after = train(flip=1.0)(image)
    before = train()(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    torch.testing.assert_close(after, before, rtol=0, atol=1.01 / 255)  # one level of rounding


def test_images_are_flipped_at_the_given_rate():
    mirrored = to_numpy(picture())[:, :, ::-1]
    flipped = [np.allclose(x, mirrored, atol=1e-6) for x in draws(train(flip=0.3), picture(), 600)]
    assert np.mean(flipped) == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 600))


def test_augmentations_happen_at_the_given_rate():
    changed = [not np.allclose(x, to_numpy(picture()), atol=1e-6)
               for x in draws(train(aug_prob=0.2, contrast=(2.0, 2.0)), picture(), 600)]  # fmt: skip
    assert np.mean(changed) == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 600))


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
               affine=0.1, rotation=10.0, noise=0.1, multiply=(0.9, 1.1), per_channel=0.5)  # fmt: skip
    found = draws(on, picture(*size), 20)
    assert found.shape == (20, 3, 8, 8)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("key", "argument", "value"),
    [
        ("PROB", "flip", 1.5), ("RE_PROB", "erase", -0.1), ("AUG_PROB", "aug_prob", 2.0), ("PADDING", "padding", -1),
        ("BLUR", "blur", -1.0), ("NOISE", "noise", -0.1), ("CROP", "crop", 0.5), ("AFFINE", "affine", 1.0),
        ("PER_CHANNEL", "per_channel", 1.1), ("ROTATION", "rotation", -1.0), ("CONTRAST", "contrast", (1.5, 0.5)),
        ("CONTRAST", "contrast", (1.0,)), ("MULTIPLY", "multiply", (-1.0, 1.0)),
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
