"""Whole batches against the changes of single images by Pillow, torchvision and NumPy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from configs import load_config
from datasets.batched import BatchedAugmentation, placed, resampled, through_levels
from datasets.changes import Blur, Contrast, Crop, Multiply, Noise, Warp
from datasets.plan import Drawn, Plan
from datasets.transforms import resized_only, training_steps

RELEASE = json.loads((Path(__file__).parents[1] / "data" / "release_augmentation.json").read_text())
OFF = {
    "size": (36, 48), "flip": 0.0, "erase": 0.0, "padding": 0, "aug_prob": 0.0, "crop": 0.0, "blur": 0.0,
    "contrast": (1.0, 1.0), "affine": 0.0, "rotation": 0.0, "noise": 0.0, "multiply": (1.0, 1.0), "per_channel": 0.0,
    "mean": (0, 0, 0), "std": (1 / 255,) * 3,
}  # fmt: skip  # levels of 0 to 255 come out
STRONG = {
    "flip": 0.5, "erase": 0.5, "padding": 5, "aug_prob": 0.6, "crop": 0.2, "blur": 2.0, "contrast": (0.6, 1.3),
    "affine": 0.2, "rotation": 30.0, "noise": 0.05, "multiply": (0.7, 1.2), "per_channel": 0.5,
}  # fmt: skip


def made(**on):
    return BatchedAugmentation(training_steps(**OFF | on))


def smooth(count=1, height=36, width=48, seed=0):
    """Pictures of Pillow, and the same as a batch."""
    rng = np.random.default_rng(seed)
    grids = [Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)) for _ in range(count)]
    pictures = [grid.resize((width, height), Image.Resampling.BICUBIC) for grid in grids]
    return pictures, torch.stack([v2.functional.pil_to_tensor(picture) for picture in pictures])


def levels(picture):
    return v2.functional.pil_to_tensor(picture).float()


def drawn(*changes, size=(48, 36), flip=False, corner=(0, 0), erased=(0, 0, 0, 0), seed=1):
    return Drawn(changes, size, flip, *corner, erased, seed)


def done(augment, images, *plans):
    return augment(images, Plan.of(plans, (images.shape[3], images.shape[2])))


def in_levels(augment, images, *plans):
    return done(augment, images, *plans).round()


@pytest.mark.parametrize("change", [Contrast(0.7), Contrast(1.25), Multiply([1.1]), Multiply([0.9, 1.0, 1.2])])
def test_levels_are_changed_as_pillow_does(change):
    pictures, images = smooth(3)
    expected = torch.stack([levels(change(picture)) for picture in pictures])
    assert torch.equal(through_levels(images, change.levels().expand(3, -1, -1)).float(), expected)
    assert torch.equal(in_levels(made(), images, *[drawn(change)] * 3), expected)


@pytest.mark.parametrize(
    "change", [Crop((0.1, 0.05, 0.0, 0.2)), Warp((1.1, 0.9), (0.1, -0.05), 10.0), Warp((0.5, 1.8), (-0.1, 0.1), 40.0)]
)
def test_geometry_is_that_of_pillow_within_a_level(change):
    (picture,), images = smooth()
    found = in_levels(made(), images, drawn(change))[0]
    difference = (found - levels(change(picture))).abs()
    assert (difference <= 1).float().mean() > 0.997  # a pixel on the border may be black in one of them


def test_a_geometry_of_nothing_changes_nothing():
    _, images = smooth(2, 31, 97)
    assert torch.equal(resampled(images, torch.tensor([[1.0, 0, 0, 0, 1, 0]] * 2)), images)


def test_a_blur_is_that_of_the_workers():
    pictures, images = smooth(2)
    found = in_levels(made(), images, drawn(Blur(1.5)), drawn())
    assert torch.equal(found, torch.stack([levels(Blur(1.5)(pictures[0])), levels(pictures[1])]))


@pytest.mark.parametrize("maps", [1, 3])
def test_noise_is_added_as_numpy_would(maps):
    _, images = smooth()
    normals = torch.empty(6, 36, 48).normal_(generator=torch.Generator().manual_seed(9))[:maps].numpy()
    expected = np.clip(images[0].numpy() + np.rint(255 * np.float32(0.1) * normals), 0, 255)
    found = in_levels(made(), images, drawn(Noise(0.1, maps), seed=9))[0]
    assert np.abs(found.numpy() - expected).max() <= 1  # where rounding is a tie
    assert (found.numpy() == expected).mean() > 0.999


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("corner", [(0, 0), (-3, 2), (4, -5), (-40, 0)])
def test_flips_and_windows_are_those_of_torchvision(flip, corner):
    _, images = smooth()
    wide = v2.functional.pad(v2.functional.horizontal_flip(images) if flip else images, [50])
    expected = v2.functional.crop(wide, corner[0] + 50, corner[1] + 50, 36, 48)
    assert torch.equal(placed(images, torch.tensor([flip]), torch.tensor([corner])), expected)


def test_pixels_are_normalised_as_by_the_workers():
    on = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    _, images = smooth(2)
    assert torch.equal(done(made(**on), images, drawn(), drawn()), training_steps(**OFF | on).normalise(images))


def test_a_rectangle_is_erased_by_standard_normal_noise_of_the_image():
    _, images = smooth(2, 300, 300)
    box = (20, 40, 200, 250)
    found = done(made(size=(300, 300)), images, drawn(erased=box), drawn(erased=box, seed=2))
    inside = found[:, :, 20:220, 40:290].clone()
    found[:, :, 20:220, 40:290] = images[:, :, 20:220, 40:290].float()
    assert torch.equal(found.round(), images.float())
    assert inside.mean().item() == pytest.approx(0, abs=4 / math.sqrt(inside.numel()))
    assert inside.std().item() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(inside[0].flatten(), inside[1].flatten())[0, 1]) < 4 / math.sqrt(inside[0].numel())


def test_changes_in_any_order_are_those_of_the_workers_from_the_same_numbers():
    augment, (pictures, images) = made(**STRONG | {"noise": 0.0, "flip": 0.0, "erase": 0.0, "padding": 0}), smooth(24)
    torch.manual_seed(0)
    plans = [augment.draw((48, 36)) for _ in pictures]
    assert len({tuple(type(change) for change in plan.changes) for plan in plans}) > 20
    expected = pictures
    for i, plan in enumerate(plans):
        for change in plan.changes:
            expected[i] = change(expected[i])
    difference = (in_levels(augment, images, *plans) - torch.stack([levels(picture) for picture in expected])).abs()
    assert (difference <= 3).float().mean() > 0.999  # a level for each of two geometries, times the contrast
    assert difference.mean() < 0.7


def test_an_image_does_not_depend_on_its_batch():
    augment, (_, images) = made(**STRONG), smooth(12)
    torch.manual_seed(0)
    plans = [augment.draw((64, 40)) for _ in images]
    whole = done(augment, images, *plans)
    assert all(torch.equal(done(augment, images[i : i + 1], plans[i])[0], whole[i]) for i in range(12))
    assert torch.equal(done(augment, images.flip(0), *plans[::-1]), whole.flip(0))


def test_what_is_drawn_depends_on_torchs_seed_alone_and_leaves_no_trace_in_it_later():
    augment, (_, images) = made(**STRONG), smooth(8)
    torch.manual_seed(0)
    plans, state = [augment.draw((64, 40)) for _ in images], torch.get_rng_state()
    first = done(augment, images, *plans)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    again = [augment.draw((64, 40)) for _ in images]
    assert again == plans
    assert torch.equal(done(augment, images, *again), first)


def test_flips_windows_and_rectangles_are_drawn_as_by_the_workers():
    augment = made(size=(16, 16), flip=0.3, erase=0.4, padding=1)
    torch.manual_seed(0)
    plans = [augment.draw((16, 16)) for _ in range(600)]
    assert np.mean([plan.flip for plan in plans]) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 600))
    assert {(plan.top, plan.left) for plan in plans} == {(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)}
    boxes = [plan.erased for plan in plans if plan.erased[2]]
    assert len(boxes) / 600 == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 600))
    assert all(0.01 < height * width / 256 < 0.36 and top + height <= 16 for top, _, height, width in boxes)
    assert len({plan.seed for plan in plans}) == 600


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 2)])
def test_images_of_extreme_shapes_pass_with_everything_on(size):
    augment = made(**STRONG | {"size": (8, 8), "padding": 2})
    _, images = smooth(20, 8, 8)
    torch.manual_seed(0)
    assert done(augment, images, *[augment.draw(size) for _ in range(20)]).isfinite().all()


@pytest.mark.slow
def test_statistics_are_those_of_the_release():
    # As in test_augmentation.py. What is cut off at black and white differs: here that comes after the resize.
    cfg, count = load_config().INPUT, 150
    augment = made(
        size=(224, 224), aug_prob=cfg.AUG_PROB, crop=cfg.CROP, blur=cfg.BLUR, contrast=cfg.CONTRAST, affine=cfg.AFFINE,
        rotation=cfg.ROTATION, noise=cfg.NOISE, multiply=cfg.MULTIPLY, per_channel=cfg.PER_CHANNEL,
    )  # fmt: skip
    photograph = Image.fromarray(load_sample_image("china.jpg"))
    plain = resized_only(augment.steps)(photograph)
    torch.manual_seed(1)
    plans = [augment.draw(photograph.size) for _ in range(count)]
    changes = torch.cat([done(augment, plain[None], plan) - plain for plan in plans])
    shift = changes.mean((2, 3))
    found = {
        "mean_abs_change": changes.abs().mean((1, 2, 3)).div(255),
        "brightness_shift": shift.mean(1),
        "colour_cast": (shift - shift.mean(1, keepdim=True)).abs().amax(1),
    }
    for name, values in found.items():
        for percentile, value in zip(RELEASE["percentiles"], RELEASE[name], strict=True):
            share = percentile / 100
            tolerance = 4 * math.sqrt(share * (1 - share) * (1 / count + 1 / 1000))
            assert (values <= value).float().mean().item() == pytest.approx(share, abs=tolerance), (name, percentile)
