import hashlib

import numpy as np
import pytest

from datasets import shapes
from datasets.shapes import COLOURS, LABELS, SEEN, SHAPES, SPLITS, UNSEEN, draw, scene


def test_the_vocabulary_is_every_colour_with_every_shape():
    assert sorted(LABELS) == sorted(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    assert len(LABELS) == 65


def test_seen_and_unseen_labels_are_48_and_17_and_disjoint():
    assert (len(SEEN), len(UNSEEN)) == (48, 17)
    assert set(SEEN) | set(UNSEEN) == set(LABELS)


def test_every_colour_and_every_shape_of_an_unseen_label_occurs_among_the_seen_ones():
    seen_words = {word for label in SEEN for word in label.split()}
    assert {word for label in UNSEEN for word in label.split()} <= seen_words


def test_a_scene_is_the_same_on_every_call():
    first, again = scene("test", 5), scene("test", 5)
    assert first.labels == again.labels
    assert np.array_equal(first.image, again.image)


def test_the_labels_of_the_first_scenes_are_those_that_results_were_computed_on():
    """Of the labels alone: pixels may differ by a grey level between versions of Pillow."""
    text = "\n".join(",".join(scene(split, i).labels) for split in SPLITS for i in range(20))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "96ebf671d9162628"


def test_no_two_splits_share_a_scene():
    images = {scene(split, i).image.tobytes() for split in SPLITS for i in range(30)}
    assert len(images) == 30 * len(SPLITS)


def test_training_scenes_hold_seen_labels_only():
    assert {label for i in range(300) for label in scene("train", i).labels} == set(SEEN)


@pytest.mark.parametrize("split", ["val", "test", "pretrain", "all"])
def test_other_scenes_hold_any_label(split):
    assert {label for i in range(300) for label in scene(split, i).labels} == set(LABELS)


def test_scenes_hold_four_to_seven_different_labels():
    counts = [len(scene("val", i).labels) for i in range(200)]
    assert set(counts) == {4, 5, 6, 7}
    assert all(len(set(scene("val", i).labels)) == count for i, count in enumerate(counts))


def test_the_number_of_objects_can_be_chosen():
    assert {len(scene("pretrain", i, (1, 1)).labels) for i in range(50)} == {1}


def test_images_are_rgb_of_64_pixels():
    image = scene("test", 0).image
    assert (image.mode, image.size) == ("RGB", (64, 64))


@pytest.mark.parametrize(("split", "index"), [("train", 6000), ("val", 1000), ("test", -1)])
def test_a_scene_beyond_the_split_is_an_error(split, index):
    with pytest.raises(IndexError, match=f"{split!r} of shapes has scenes 0 to {SPLITS[split].size - 1}, not {index}"):
        scene(split, index)


def test_the_last_scene_of_a_split_exists():
    assert scene("val", 999).labels


def silhouette(label, seed=0):
    """Mask of the saturated pixels: backgrounds are greyish, objects are not."""
    pixels = np.asarray(draw((label,), np.random.default_rng(seed)), dtype=float)
    return pixels, pixels.max(-1) - pixels.min(-1) > 0.5 * pixels.max(-1).clip(60)


@pytest.mark.parametrize("label", LABELS)
def test_an_object_has_the_hue_of_its_colour(label):
    pixels, mask = silhouette(label)
    assert mask.sum() > 40
    red, green, blue = np.median(pixels[mask], axis=0) / 255
    hue = np.rad2deg(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    assert abs((hue - COLOURS[label.split()[0]] + 180) % 360 - 180) < 15


def test_shapes_are_told_apart_by_their_silhouette():
    masks = [np.asarray(shapes._mask(shape, 24, 0.0), dtype=float) / 255 for shape in SHAPES]
    overlaps = [np.minimum(a, b).sum() / np.maximum(a, b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.92


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("angle", [-np.pi / 9, np.pi / 9])
def test_a_turned_shape_fits_its_box(shape, angle):
    mask = np.asarray(shapes._mask(shape, 24, angle))
    assert mask.any()
    assert not np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).any()


def test_a_ring_has_a_hole_and_a_circle_has_none():
    centres = [shapes._mask(shape, 20, 0.0) for shape in ("ring", "circle")]
    assert [mask.getpixel((mask.width // 2, mask.height // 2)) for mask in centres] == [0, 255]


def test_objects_lie_within_the_image():
    for seed in range(100):
        for x, y, radius in shapes._placements(5, np.random.default_rng(seed)):
            assert radius <= min(x, y, 1 - x, 1 - y)


def test_masks_lie_where_the_picture_has_the_colours_of_the_objects():
    for index in range(20):
        image, labels = scene("test", index)
        hues = np.asarray(image.convert("HSV")).astype(float)[..., 0] * 360 / 255
        masks = shapes.scene_masks("test", index)
        assert masks.shape == (len(labels), 64, 64)
        for label, mask in zip(labels, masks, strict=True):
            apart = np.abs((hues[mask == 1] - COLOURS[label.split()[0]] + 180) % 360 - 180)
            assert apart.size == 0 or np.median(apart) < 16, (index, label)


def test_masks_are_what_is_seen_so_none_overlap():
    totals = np.stack([shapes.scene_masks("test", index).sum(0) for index in range(20)])
    assert totals.max() <= 1 + 1e-6
    assert totals.min() == 0
