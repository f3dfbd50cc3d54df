import io
import os
import struct
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile, features

from datasets import shapes
from datasets.images import FORMATS, decode_image, locate, open_image, open_truncated, require_images
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
    root = tree("d/x.jpg", "x.jpg", "y.jpg", "c/z.jpg")
    found = [locate(f"/far/b/{name}.jpg", root) for name in "xyzx"]
    assert found == [Path(root, file) for file in ("x.jpg", "y.jpg", "c/z.jpg", "x.jpg")]


@pytest.mark.parametrize("listed", ["dog/3.jpg", "/far/dog/3.jpg", "C:\\far\\dog\\3.jpg"])
def test_an_image_that_its_folder_lacks_is_not_one_of_the_same_name_elsewhere(tree, listed):
    root = tree("cat/3.jpg", "3.jpg", "dog/4.jpg")
    with pytest.raises(DataError, match="no image"):
        locate(listed, root)


def test_an_image_that_its_absolute_folder_lacks_is_not_one_of_the_same_name_elsewhere(tree):
    root = tree("cat/3.jpg", "dog/4.jpg")
    with pytest.raises(DataError, match="no image"):
        locate(f"{root}/dog/3.jpg", root)


def test_a_foreign_path_directly_below_the_root_of_a_disk_is_looked_up_by_name(tree):
    root = tree("cat/none-such-3.jpg")
    assert locate("/none-such-3.jpg", root) == Path(root, "cat/none-such-3.jpg")


def test_a_name_that_several_folders_have_is_an_error_that_names_two(tree):
    root = tree("cat/3.jpg", "dog/3.jpg")
    with pytest.raises(
        DataError, match=r"cat/3\.jpg and .*dog/3\.jpg have the name of '3\.jpg': list images with their"
    ):
        locate("3.jpg", root)


def test_a_link_to_itself_among_the_folders_is_passed_over(tree):
    root = tree("cat/3.jpg")
    Path(root, "loop").symlink_to("loop")
    assert locate("3.jpg", root) == Path(root, "cat/3.jpg")


def test_backslashes_separate_folders(tree):
    root = tree("actor/0001.jpg")
    assert locate("actor\\0001.jpg", root) == Path(root, "actor/0001.jpg")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (r"C:\data\a.jpg", "data/a.jpg"),
        (r"C:\data\a.jpg", "a.jpg"),
        ("d:/Bilder/x/a.jpg", "x/a.jpg"),
        (r"\\server\share\x\a.jpg", "x/a.jpg"),
        (r"C:\data\a.jpg", "C:/data/a.jpg"),
    ],
)
def test_paths_of_windows_are_found_below_the_root(tree, path, where):
    root = tree(where, "other/b.jpg")
    assert locate(path, root) == Path(root, where)


FORMS = [(a, b) for a in ("NFC", "NFD") for b in ("NFC", "NFD")]


@pytest.mark.parametrize("wanted", ["NFC", "NFD"])
@pytest.mark.parametrize(("folder", "name"), FORMS)
def test_either_normal_form_of_unicode_is_found(tree, wanted, folder, name):
    where = f"deep/{unicodedata.normalize(folder, 'Müller')}/{unicodedata.normalize(name, 'é.jpg')}"
    root = tree(where)
    path = unicodedata.normalize(wanted, "/far/deep/Müller/é.jpg")
    assert unicodedata.is_normalized(wanted, path)
    assert locate(path, root) == Path(root, where)


def test_the_name_as_it_is_comes_before_its_other_normal_form(tree):
    names = [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    root = tree(names[0], *(f"a/{name}" for name in names))
    assert [locate(f"/far/{name}", root) for name in names] == [Path(root, names[0]), Path(root, "a", names[1])]


def test_names_that_are_there_are_not_normalised(tree, monkeypatch):
    root = tree("für/犬.jpg")
    monkeypatch.setattr("datasets.images.unicodedata", None)
    assert locate("/far/für/犬.jpg", root) == Path(root, "für/犬.jpg")


def test_a_name_that_is_nowhere_in_any_normal_form_is_an_error(tree):
    with pytest.raises(DataError, match="no image 'für/é.jpg'"):
        locate("für/é.jpg", tree("für/e.jpg"))


def test_links_are_followed(tree, tmp_path):
    root = tree("x.jpg")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "y.jpg").touch()
    Path(root, "link").symlink_to(tmp_path / "store")
    Path(root, "z.jpg").symlink_to(tmp_path / "store" / "y.jpg")
    assert locate("/far/y.jpg", root) == Path(root, "link/y.jpg")
    assert locate("z.jpg", root) == Path(root, "z.jpg")


def test_a_link_to_nothing_is_a_missing_image(tree):
    root = tree("x.jpg")
    Path(root, "y.jpg").symlink_to("gone.jpg")
    with pytest.raises(DataError, match=r"no image 'y\.jpg'"):
        locate("y.jpg", root)


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


UPRIGHT = {  # what a viewer shows of the stored rows: EXIF 2.3, table 6, tag 0x0112
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


@pytest.fixture
def oriented(tmp_path):
    """Stores pixels with an orientation in EXIF, and gives the folder."""

    def oriented(pixels, orientation, name="x.png"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / name, exif=exif)
        return str(tmp_path)

    return oriented


PIXELS = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_not_applied(oriented, orientation):
    assert np.array_equal(open_image("x.png", oriented(PIXELS, orientation)), PIXELS)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied_where_it_is_asked_for(oriented, orientation):
    image = open_image("x.png", oriented(PIXELS, orientation), rotate=True)
    assert np.array_equal(image, UPRIGHT[orientation](PIXELS))


@pytest.mark.parametrize(("rotate", "size"), [(False, (20, 10)), (True, (10, 20))])
def test_a_jpeg_of_a_phone_is_turned_where_it_is_asked_for(oriented, rotate, size):
    folder = oriented(np.zeros((10, 20, 3), np.uint8), 6, "x.jpg")
    assert open_image("x.jpg", folder, rotate=rotate).size == size


@pytest.mark.parametrize(("mode", "colour"), [("L", 70), ("CMYK", (0, 255, 255, 0)), ("RGB", (255, 0, 0))])
def test_what_is_turned_becomes_rgb_too(tmp_path, mode, colour):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new(mode, (20, 10), colour).save(tmp_path / "x.jpg", exif=exif)
    image = open_image("x.jpg", str(tmp_path), rotate=True)
    assert (image.mode, image.size) == ("RGB", (10, 20))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0"])
def test_exif_that_means_nothing_turns_nothing(tmp_path, exif):
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert open_image("x.jpg", str(tmp_path), rotate=True).size == (20, 10)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_an_animation_is_its_first_frame(tmp_path, suffix, rotate):
    frames = [Image.new("RGB", (8, 8), colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / f"x.{suffix}") as stored:
        assert stored.n_frames == 3
    assert open_image(f"x.{suffix}", str(tmp_path), rotate=rotate).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["für 犬.png", "x y.PNG", "a'b\"c.png", "100%.png"])
def test_a_file_of_any_name_is_opened(tmp_path, name):
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / name, format="PNG")
    assert open_image(f"C:\\far\\{name}", str(tmp_path)).getpixel((0, 0)) == (1, 2, 3)


def test_the_suffix_does_not_decide_the_format(tmp_path):
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "x.jpg", format="PNG")
    assert open_image("x.jpg", str(tmp_path)).getpixel((0, 0)) == (1, 2, 3)


def _png_of(width, height):
    """The head of a PNG of this size, without pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 9) + b"IDAT"


@pytest.mark.parametrize("action", ["default", "ignore", "error"])
def test_a_decompression_bomb_is_one_line_whatever_is_done_with_warnings(tmp_path, action):
    (tmp_path / "x.png").write_bytes(_png_of(60_000, 60_000))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter(action)
        with pytest.raises(DataError, match=r"cannot read the image .*x\.png: .*178,956,970 pixels: make it smaller$"):
            open_image("x.png", str(tmp_path))
    assert heard == []


def test_more_pixels_than_may_be_are_not_decoded(tmp_path):
    (tmp_path / "x.png").write_bytes(_png_of(101, 100))
    with pytest.raises(DataError, match=r"x\.png: it has more than 10,000 pixels: make it smaller$"):
        open_image("x.png", str(tmp_path), most_pixels=10_000)
    with pytest.raises(DataError, match=r"x\.png: it has more than 10,000 pixels"):
        open_truncated("x.png", str(tmp_path), most_pixels=10_000)


def test_as_many_pixels_as_may_be_are_read(tmp_path):
    Image.new("RGB", (10, 5)).save(tmp_path / "x.png")
    assert open_image("x.png", str(tmp_path), most_pixels=50).size == (10, 5)


@pytest.mark.parametrize("name", ["x.eps", "x.jpg"])
def test_a_picture_that_would_start_ghostscript_is_refused(tmp_path, monkeypatch, name):
    Image.new("RGB", (4, 4)).save(tmp_path / name, format="EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(DataError, match=r"cannot read the image .*: it is none of JPEG, .*, or damaged$"):
        open_image(name, str(tmp_path))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_promised_is_read(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    first = Image.new("RGB", (16, 8), (250, 5, 5))
    first.save(tmp_path / "x", format=kind, **({"save_all": True} if kind == "MPO" else {}))
    red, green, blue = open_image("x", str(tmp_path)).getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 50


def test_an_image_so_large_that_pillow_warns_is_read(tmp_path, monkeypatch):
    Image.new("RGB", (10, 5)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 26)
    assert open_image("x.png", str(tmp_path)).size == (10, 5)


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
        ("x.webp", _truncated),
        ("x.gif", _truncated),
        ("ü.jpg", _truncated),
        ("x.jpg", lambda path: path.write_bytes(b"")),
        ("x.jpg", lambda path: path.write_text("<html>404</html>")),
    ],
    ids=["truncated-jpeg", "truncated-png", "truncated-webp", "truncated-gif", "not-ascii", "empty", "html"],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, name, spoil):
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=f"cannot read the image {tmp_path / name}: ") as caught:
        open_image(name, str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_of_a_truncated_file_what_is_there_is_read(tmp_path, suffix):
    whole = np.full((64, 64, 3), 200, np.uint8)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(whole + np.random.default_rng(0).integers(0, 50, whole.shape, np.uint8)).save(path)
    expected = np.asarray(open_image(path.name, str(tmp_path)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    if suffix == "webp":  # its decoder gives all or nothing
        with pytest.raises(DataError, match=r"cannot read the image .*x\.webp"):
            open_truncated(path.name, str(tmp_path))
        return
    found = np.asarray(open_truncated(path.name, str(tmp_path)))
    assert found.shape == expected.shape
    assert (found[:4] == expected[:4]).all()
    assert not (found[-8:] == expected[-8:]).any(axis=(1, 2)).any()


def test_reading_truncated_files_is_not_left_on(tmp_path):
    with pytest.raises(DataError):
        open_truncated("absent.jpg", str(tmp_path))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_file_that_is_no_image_is_not_read_in_part_either(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"cannot read the image .*x\.jpg"):
        open_truncated("x.jpg", str(tmp_path))


def test_a_scene_of_shapes_is_drawn():
    assert np.array_equal(open_image("shapes:test/17", "/anywhere"), shapes.scene("test", 17).image)


@pytest.mark.parametrize("reference", ["shapes:test", "shapes:nope/1", "shapes:test/-1", "shapes:test/2000"])
def test_a_scene_that_does_not_exist_is_an_error(reference):
    with pytest.raises(DataError, match="shapes"):
        open_image(reference, "")


def test_images_that_are_all_there_pass(tree):
    root = tree("a/x.jpg", "y.jpg")
    require_images(["a/x.jpg", "y.jpg", "shapes:test/1"], root)


def test_missing_images_are_counted_and_the_first_is_named(tree):
    root = tree("a/x.jpg")
    with pytest.raises(DataError, match=r"^2 of 3 images are missing; .*check_data\.py.*: no image 'a/q\.jpg'"):
        require_images(["a/x.jpg", "a/q.jpg", "a/r.jpg"], root)


def test_one_missing_image_is_named(tree):
    with pytest.raises(DataError, match=r"^no image 'a/q\.jpg'"):
        require_images(["a/x.jpg", "a/q.jpg"], tree("a/x.jpg"))


def test_bytes_are_decoded_as_the_file_is_and_refused_by_the_name_they_are_given(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (20, 10), (200, 30, 60)).save(path)
    decoded = decode_image(io.BytesIO(path.read_bytes()), "a.jpg of b.tar")
    assert decoded.tobytes() == open_image(str(path), "").tobytes()
    with pytest.raises(DataError, match="^cannot read the image a.jpg of b.tar: it has more than 199 pixels"):
        decode_image(io.BytesIO(path.read_bytes()), "a.jpg of b.tar", most_pixels=199)
    with pytest.raises(DataError, match="^cannot read the image a.jpg of b.tar: it is none of JPEG, "):
        decode_image(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0"), "a.jpg of b.tar")
