"""The picture of the embedded benchmark."""

import sys

import numpy as np
from PIL import Image

from datasets.shapes import scene
from tools import show_scenes


def test_the_first_scene_stands_in_the_upper_left_corner(tmp_path, monkeypatch):
    out = tmp_path / "shapes.png"
    monkeypatch.setattr(
        sys, "argv", ["show_scenes.py", str(out), "--split", "shapes:val", "--columns", "2", "--rows", "1"]
    )
    show_scenes.main()
    corner = np.asarray(Image.open(out))[10:202:3, 10:202:3]
    np.testing.assert_array_equal(corner, np.asarray(scene("val", 0).image))
