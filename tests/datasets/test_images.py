import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import shapes
from datasets.images import locate, open_image
from datasets.records import DataError

FOREIGN = "/mnt/nas/someone/COCO/trainval2014/COCO_val2014_000000331627.jpg"


@pytest.fixture
def tree(tmp_path):
    """Makes empty files below a root folder, and gives the root."""

    def tree(*files):
        for file in files:
            (tmp_path / "root" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / file).touch()
        return str(tmp_path / "root")

    return tree


@pytest.mark.parametrize(
    "where",
    [
        "mnt/nas/someone/COCO/trainval2014/COCO_val2014_000000331627.jpg",
        "COCO/trainval2014/COCO_val2014_000000331627.jpg",
        "trainval2014/COCO_val2014_000000331627.jpg",
        "COCO_val2014_000000331627.jpg",
        "val2014/COCO_val2014_000000331627.jpg",
    ],
)
def test_a_foreign_absolute_path_is_found_below_the_root(tree, where):
    root = tree(where, "train2014/other.jpg")
    assert locate(FOREIGN, root) == Path(root, where)


def test_an_absolute_path_that_exists_is_used_as_it_is(tree, tmp_path):
    root = tree("a/x.jpg", "x.jpg")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").touch()
    assert locate(str(tmp_path / "a" / "x.jpg"), root) == tmp_path / "a" / "x.jpg"


def test_the_longest_end_of_a_path_is_preferred(tree):
    root = tree("a/b/x.jpg", "b/x.jpg", "x.jpg", "c/x.jpg")
    assert locate("/far/a/b/x.jpg", root) == Path(root, "a/b/x.jpg")


def test_where_one_image_was_found_does_not_decide_where_the_next_one_is(tree):
    root = tree("b/x.jpg", "x.jpg", "y.jpg", "c/z.jpg")
    found = [locate(f"/far/b/{name}.jpg", root) for name in "xyzx"]
    assert found == [Path(root, file) for file in ("b/x.jpg", "y.jpg", "c/z.jpg", "b/x.jpg")]


def test_backslashes_separate_folders(tree):
    root = tree("actor/0001.jpg")
    assert locate("actor\\0001.jpg", root) == Path(root, "actor/0001.jpg")


def test_a_relative_path_may_leave_the_root(tree, tmp_path):
    root = tree("x.jpg")
    (tmp_path / "y.jpg").touch()
    assert os.path.samefile(locate("../y.jpg", root), tmp_path / "y.jpg")


@pytest.mark.parametrize("path", [FOREIGN, "a", "deep/er"])
def test_an_image_that_is_nowhere_is_an_error_naming_it_and_the_key(tree, path):
    root = tree("a/x.jpg", "deep/er/x.jpg")  # folders of the wanted names
    with pytest.raises(DataError, match=rf"{path}.*DATASETS\.IMAGE_DIR"):
        locate(path, root)


def test_a_root_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no image"):
        locate("x.jpg", str(tmp_path / "nowhere"))


def test_no_folder_is_looked_up_again_for_the_next_image(tree, monkeypatch):
    root = tree(*(f"val2014/{i}.jpg" for i in range(50)))
    locate("/mnt/nas/trainval2014/0.jpg", root)
    monkeypatch.setattr(os.path, "isdir", None)
    monkeypatch.setattr(os, "scandir", None)
    assert len({locate(f"/mnt/nas/trainval2014/{i}.jpg", root) for i in range(50)}) == 50


PALETTED = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L")
PALETTED = PALETTED.convert("P")
PALETTED.putpalette([9, 8, 7, 50, 60, 70, 200, 100, 0])


@pytest.mark.parametrize(
    ("image", "options", "corner"),
    [
        (Image.new("RGB", (2, 2), (10, 20, 30)), {}, (10, 20, 30)),
        (Image.new("L", (2, 2), 77), {}, (77, 77, 77)),
        (Image.new("1", (2, 2), 1), {}, (255, 255, 255)),
        (Image.new("LA", (2, 2), (77, 0)), {}, (77, 77, 77)),
        (Image.new("RGBA", (2, 2), (10, 20, 30, 0)), {}, (10, 20, 30)),
        (Image.fromarray(np.full((2, 2), 77 * 256 + 9, np.uint16)), {}, (77, 77, 77)),
        (PALETTED, {}, (9, 8, 7)),
        (PALETTED, {"transparency": b"\x80\xff\x10"}, (9, 8, 7)),
        (PALETTED, {"transparency": 0}, (9, 8, 7)),
    ],
    ids=["RGB", "grey", "bits", "grey-alpha", "RGBA", "16-bit", "palette", "palette-alpha", "palette-transparent"],
)
def test_every_kind_of_png_becomes_rgb(tmp_path, image, options, corner):
    image.save(tmp_path / "x.png", **options)
    read = open_image("x.png", str(tmp_path))
    assert (read.mode, read.getpixel((0, 0))) == ("RGB", corner)


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(np.array(open_image("x.jpg", str(tmp_path)).getpixel((5, 5))) - (0, 255, 255)).max() <= 2


def test_exif_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert open_image("x.jpg", str(tmp_path)).size == (20, 10)


def test_the_file_is_closed(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("needs /proc")
    held = [open_image("x.png", str(tmp_path)) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before, held


def _truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("x.jpg", _truncated),
        ("x.png", _truncated),
        ("x.jpg", lambda path: path.write_bytes(b"")),
        ("x.jpg", lambda path: path.write_text("<html>404</html>")),
    ],
    ids=["truncated-jpeg", "truncated-png", "empty", "html"],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name, spoil):
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=f"cannot read the image {tmp_path / name}: ") as caught:
        open_image(name, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_scene_of_shapes_is_drawn():
    assert np.array_equal(open_image("shapes:test/17", "/anywhere"), shapes.scene("test", 17).image)


@pytest.mark.parametrize("reference", ["shapes:test", "shapes:nope/1", "shapes:test/-1", "shapes:test/2000"])
def test_a_scene_that_does_not_exist_is_an_error(reference):
    with pytest.raises(DataError, match="shapes"):
        open_image(reference, "")
