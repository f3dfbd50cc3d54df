"""Maps over pictures."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from engine.atomic import WriteError
from tagging.overlays import overlay, write_maps
from tagging.predictor import Prediction

GREY = Image.new("RGB", (400, 200), (128, 128, 128))


def pixel(image, x, y):
    return np.asarray(image)[y, x].astype(int)


def test_warmth_is_where_the_map_is_high():
    chart = torch.zeros(4, 8)
    chart[0, 6] = 1.0  # rows from the top, columns from the left
    found = np.asarray(overlay(GREY, chart)).astype(int)
    warmth = found[..., 0] - found[..., 2]  # red - blue
    y, x = np.unravel_index(warmth.argmax(), warmth.shape)
    assert 300 <= x < 350
    assert 0 <= y < 50
    assert warmth[120:, :200].max() <= 0


def test_a_map_of_nothing_leaves_the_picture_grey_and_darker():
    found = np.asarray(overlay(Image.new("RGB", (400, 300), (200, 40, 40)), torch.zeros(2, 2))).astype(int)
    assert np.ptp(found, axis=-1).max() <= 3
    assert found.mean() < np.asarray(Image.new("RGB", (1, 1), (200, 40, 40)).convert("L")).mean()


def test_the_scale_is_absolute():
    """The same colour for the same probability, whatever else the map holds."""
    low, both = torch.full((4, 8), 0.4), torch.full((4, 8), 0.4)
    both[:, 7] = 1.0
    np.testing.assert_array_equal(pixel(overlay(GREY, low), 50, 100), pixel(overlay(GREY, both), 50, 100))


def test_the_colour_is_that_of_the_probability():
    black = Image.new("RGB", (400, 200))
    expected = 255 * 0.8 * np.array(matplotlib.colormaps["inferno"](1.0)[:3])
    np.testing.assert_allclose(pixel(overlay(black, torch.ones(4, 8)), 200, 100), expected, atol=1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((64, 64), (384, 384)), ((4000, 1000), (1024, 256)), ((500, 400), (500, 400)), ((5000, 1), (1024, 1))],
)  # fmt: skip
def test_the_size_is_one_to_look_at(size, expected):
    assert overlay(Image.new("RGB", size), torch.zeros(3, 3)).size == expected


def test_every_label_has_its_map_in_the_order_of_probability(tmp_path):
    labels = ("red circle", "a/b: c?", "ü" * 200)
    prediction = Prediction("x.png", labels, (0.9, 0.8, 0.7), torch.rand(3, 4, 4))
    write_maps(tmp_path / "sub" / "x.png", GREY, prediction)
    found = sorted(path.name for path in (tmp_path / "sub" / "x.png").iterdir())
    assert found == ["1-red circle.png", "2-a_b_ c_.png", f"3-{'ü' * 100}.png"]
    first = Image.open(tmp_path / "sub" / "x.png" / found[0])
    np.testing.assert_array_equal(np.asarray(first), np.asarray(overlay(GREY, prediction.maps[0])))


def test_a_refusal_of_the_system_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write, "):
        write_maps(tmp_path / "file" / "x.png", GREY, Prediction("x.png", (), (), torch.zeros(0, 4, 4)))
