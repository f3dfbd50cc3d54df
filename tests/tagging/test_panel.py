"""Some pictures with what a tagger finds in them."""

import numpy as np
from PIL import Image

from tagging.panel import PICTURES, panel


def test_a_panel_has_a_row_for_each_of_the_first_pictures_that_can_be_read(tagger, tmp_path):
    names = [f"{k}.png" for k in range(PICTURES + 2)]
    for k, name in enumerate(names):
        Image.fromarray(np.full((40, 40, 3), 30 * k, np.uint8)).save(tmp_path / name)
    whole = panel(tagger, names, str(tmp_path))
    (tmp_path / "1.png").write_text("no picture")
    (tmp_path / "2.png").unlink()
    fewer = panel(tagger, names, str(tmp_path))
    assert whole.height > 1.3 * fewer.height


def test_without_a_picture_there_is_no_panel(tagger, tmp_path):
    assert panel(tagger, ["gone.png"], str(tmp_path)) is None
