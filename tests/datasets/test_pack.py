import json
import pickle

import numpy as np
import pytest
import torch

from datasets.pack import Entry, Pack, PackError, checksum, file_bytes, preparation

HOW = "5 x 4 pixels (bilinear)"


def write_part(folder, number, pixels, rows):
    (folder / f"part-{number:05}.pixels").write_bytes(pixels.tobytes())
    (folder / f"part-{number:05}.json").write_text(json.dumps({"size": [4, 5], "images": rows}))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 4, 5), np.uint8)


@pytest.fixture
def folder(tmp_path, pixels):
    """A pack of five images in two parts, and their files, but for the first."""
    place = tmp_path / "pack"
    place.mkdir()
    (place / "pack.json").write_text(json.dumps({"format": "image pack", "version": 1, "preparation": HOW}))
    rows = [[f"{i}.jpg", 100 + i, 60 + i, 40, i != 3, checksum(image)] for i, image in enumerate(pixels)]
    write_part(place, 0, pixels[:2], rows[:2])
    write_part(place, 7, pixels[2:], rows[2:])
    for i in range(1, 5):
        (tmp_path / f"{i}.jpg").write_bytes(b"x" * (100 + i))
    return place


def opened(folder, finish=torch.clone):
    return Pack.open(folder, HOW, finish)


def found(pack, name, **how):
    return pack.find(name, **{"read_truncated": True, "most_pixels": 10**6} | how)


def test_an_image_is_its_pixels_finished_with_the_size_of_its_file(folder, pixels):
    pack = opened(folder, finish=lambda image: image.float() / 2)
    for i in range(5):
        image, size, whole = found(pack, f"{i}.jpg")
        assert torch.equal(image, torch.from_numpy(pixels[i]).float() / 2)
        assert (size, whole) == ((60 + i, 40), i != 3)


def test_what_is_not_there_or_would_be_refused_as_a_file_is_none(folder):
    pack = opened(folder)
    assert found(pack, "5.jpg") is None
    assert found(pack, "3.jpg", read_truncated=False) is None
    assert found(pack, "2.jpg", read_truncated=False) is not None
    assert found(pack, "2.jpg", most_pixels=62 * 40 - 1) is None


def test_what_is_read_can_be_changed_without_changing_the_pack(folder, pixels):
    pack = opened(folder, finish=lambda image: image)
    found(pack, "1.jpg").image.zero_()
    assert torch.equal(found(pack, "1.jpg").image, torch.from_numpy(pixels[1]))


def test_a_pack_can_be_sent_to_workers_without_its_maps(folder, pixels):
    pack = opened(folder)
    found(pack, "4.jpg")
    again = pickle.loads(pickle.dumps(pack))
    assert again._mapped == {}
    assert torch.equal(found(again, "4.jpg").image, torch.from_numpy(pixels[4]))


def test_a_part_without_its_names_does_not_count(folder):
    (folder / "part-00007.json").unlink()
    assert list(opened(folder).known) == ["0.jpg", "1.jpg"]


def test_files_may_be_gone_but_not_be_others(folder, tmp_path):
    pack, names = opened(folder), [f"{i}.jpg" for i in range(6)]
    pack.require_current(names, str(tmp_path))
    (tmp_path / "4.jpg").write_bytes(b"")
    with pytest.raises(PackError, match=r"'4\.jpg' is another file than was packed in .*pack: remove the folder and"):
        pack.require_current(names, str(tmp_path))
    assert file_bytes("shapes:test/3", "") == 0


def test_images_that_are_missing_are_told_unless_all_are(folder):
    assert opened(folder).missing(["1.jpg", "a.jpg", "2.jpg", "b.jpg"]) == ["a.jpg", "b.jpg"]
    assert opened(folder).missing([]) == []
    with pytest.raises(PackError, match=r"has none of the 2 images, such as 'a\.jpg': pack this list with tools/pack"):
        opened(folder).missing(["a.jpg", "b.jpg"])


def test_pixels_that_have_changed_on_the_disk_are_an_error(folder):
    content = bytearray((folder / "part-00000.pixels").read_bytes())
    content[-1] ^= 1
    (folder / "part-00000.pixels").write_bytes(content)
    pack = opened(folder)
    assert found(pack, "0.jpg") is not None
    with pytest.raises(PackError, match=r"pack is damaged, the pixels of '1\.jpg' have changed: remove the folder"):
        found(pack, "1.jpg")


def test_images_that_were_made_otherwise_are_refused(folder):
    other = preparation("5 x 4 pixels (bicubic)", rotate=False)
    with pytest.raises(PackError, match=r"has images of 5 x 4 pixels \(bilinear\), and 5 x 4 pixels \(bicubic\) are"):
        Pack.open(folder, other, torch.clone)
    assert preparation(HOW, rotate=True) == f"{HOW}, turned upright"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("pack.json", None, "holds no packed images: make them with tools/pack_images.py"),
        ("pack.json", "{", r"pack\.json is broken: remove the folder"),
        ("pack.json", "[]", r"pack\.json is broken"),
        ("pack.json", "[" * 100_000, r"pack\.json is broken"),
        ("pack.json", '{"format": "image pack", "version": 2, "preparation": ""}', "is no pack of version 1"),
        ("part-00000.json", "", r"part-00000\.json is broken"),
        ("part-00000.json", '{"size": [4, 5], "images": [["a", 1, 2]]}', r"part-00000\.json is broken"),
        ("part-00000.json", '{"size": [4, 1e999], "images": []}', r"part-00000\.json is broken"),
        ("part-00000.json", '{"size": [4, 5], "images": [["a",1,1,1,true,1],["a",1,1,1,true,1]]}', "is broken"),
        ("part-00000.pixels", None, r"part-00000\.json is broken"),
        ("part-00007.pixels", "cut", r"part-00007\.json is broken"),
    ],
)
def test_a_broken_pack_is_one_line_that_says_what_to_do(folder, name, text, said):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(PackError, match=said) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)


def test_an_entry_is_a_row_of_the_index(folder):
    assert opened(folder).known["3.jpg"][:4] == Entry(103, 63, 40, False, 0)[:4]
