"""Packs from the command line: what is in them, what a kill leaves, and that what is read from them is the same."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import build_test, build_train
from datasets.pack import Pack, PackError
from engine.atomic import atomic_write
from engine.claim import ClaimError
from tools import pack_images
from tools.pack_images import extend, image_sets, main

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny.yml")
DEVICE = ("DATALOADER.AUGMENT_ON", "device")


@pytest.fixture
def packed(benchmark, tmp_path, monkeypatch):
    """The benchmark with its images packed in `pack`, two in a part; `pack_again` repeats the command."""
    monkeypatch.setattr(pack_images, "PART", 2)
    benchmark.pack = tmp_path / "pack"

    def pack_again(*overrides):
        return main([TINY, "--out", str(benchmark.pack), *benchmark.overrides, *overrides])

    benchmark.pack_again = pack_again
    assert pack_again() == 0
    return benchmark


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def batches(cfg):
    train = build_train(cfg).loader
    train.set_position(2)
    made = [(batch.paths, train.dataset.augment(batch.images, batch.plan)) for batch in train]
    tests = [build_test(cfg, split).protocols.values() for split in ("val", "test")]
    return made + [(b.paths, b.images) for test in tests for protocol in test for b in protocol.loader]


def test_training_and_evaluation_are_to_the_bit_those_of_the_files_which_may_be_gone(packed):
    expected = batches(packed.config(*DEVICE))
    for path in (packed.data / "images").iterdir():
        path.unlink()
    found = batches(packed.config(*DEVICE, "DATASETS.PACK", str(packed.pack)))
    assert [paths for paths, _ in found] == [paths for paths, _ in expected]
    for (_, ours), (_, theirs) in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()


def test_where_workers_augment_training_reads_files_at_their_full_size(packed):
    loader = build_train(packed.config("DATASETS.PACK", str(packed.pack))).loader
    assert loader.dataset.pack is None
    assert loader.dataset.opened(loader.dataset.records.images[0])[0].size == (36, 40)


def test_a_pack_says_what_it_has_and_where_to_read_on(packed, capsys):
    assert packed.pack_again() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{packed.pack / 'train'}: 6 images, 0.0 MB; ")
    assert lines[1].startswith(f"{packed.pack / 'test'}: 14 images, ")
    assert f"DATASETS.PACK {packed.pack}" in lines[2]


def test_a_second_run_reads_nothing_again_and_changes_nothing(packed):
    before = content(packed.pack)
    for path in (packed.data / "images").iterdir():
        path.write_bytes(b"x" * path.stat().st_size)
    assert packed.pack_again() == 0
    assert content(packed.pack) == before


def test_new_images_are_added(packed):
    (packed.pack / "test" / "part-00006.json").unlink()
    assert packed.pack_again() == 0
    cfg = packed.config("DATASETS.PACK", str(packed.pack))
    assert {len(p.loader.dataset.pack.known) for p in build_test(cfg, "val").protocols.values()} == {14}


def test_one_half_alone_can_be_packed(benchmark, tmp_path):
    assert list(image_sets(benchmark.config(*pack_images.READING), "train")) == ["train"]
    (benchmark.data / "train.json").unlink()
    overrides = [*benchmark.overrides, "DATASETS.UNSEEN", "car,kite,sun"]
    assert main([TINY, "--out", str(tmp_path / "pack"), "--only", "test", *overrides]) == 0
    assert [path.name for path in (tmp_path / "pack").iterdir()] == ["test"]


def killed_in_write(number, *arguments):
    """Another process extends a pack and kills itself when it has written half of a file."""
    process = os.fork()
    if process == 0:
        left = [number]

        @contextmanager
        def dying(path, mode="wb"):
            with atomic_write(path, mode) as file:
                yield file
                left[0] -= 1
                if not left[0]:
                    file.truncate(file.tell() // 2)
                    os.kill(os.getpid(), signal.SIGKILL)

        pack_images.atomic_write = dying
        try:
            extend(*arguments)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("number", range(1, 6), ids=["manifest", "pixels", "names", "more pixels", "more names"])
def test_a_pack_that_was_killed_in_any_file_goes_on(benchmark, tmp_path, monkeypatch, number):
    monkeypatch.setattr(pack_images, "PART", 2)
    sets = image_sets(benchmark.config(*pack_images.READING), "train")["train"]
    assert extend(tmp_path / "through", sets, 0) == []
    killed_in_write(number, tmp_path / "killed", sets, 0)
    assert extend(tmp_path / "killed", sets, 0) == []
    assert content(tmp_path / "killed") == content(tmp_path / "through")


def test_two_workers_make_the_pack_of_none(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_images, "PART", 2)
    sets = image_sets(benchmark.config(*pack_images.READING), "train")["train"]
    assert extend(tmp_path / "alone", sets, 0) == extend(tmp_path / "helped", sets, 2) == []
    assert content(tmp_path / "helped") == content(tmp_path / "alone")


def test_what_cannot_be_read_is_named_and_left_to_the_training(benchmark, tmp_path, capsys):
    (benchmark.data / "images" / "test3.jpg").write_bytes(b"no image")
    assert main([TINY, "--out", str(tmp_path / "pack"), *benchmark.overrides]) == 1
    assert "left out: cannot read the image" in capsys.readouterr().err
    cfg = benchmark.config("DATASETS.PACK", str(tmp_path / "pack"), "DATALOADER.SKIP_BROKEN", "True")
    loader = build_test(cfg, "test").protocols["GZSL"].loader
    assert sum(len(batch.paths) for batch in loader) == 6
    assert loader.skipped == ["/elsewhere/images/test3.jpg"]


@pytest.mark.parametrize("read", [True, False])
def test_images_that_are_cut_short_are_named_or_refused_as_without_a_pack(benchmark, tmp_path, read):
    path = benchmark.data / "images" / "test0.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main([TINY, "--out", str(tmp_path / "pack"), *benchmark.overrides]) == 0
    settings = ("DATALOADER.SKIP_BROKEN", "True", "DATALOADER.READ_TRUNCATED", str(read))
    loaders = [
        build_test(benchmark.config(*settings, *pack), "test").protocols["GZSL"].loader
        for pack in ((), ("DATASETS.PACK", str(tmp_path / "pack")))
    ]
    for found, expected in zip(*loaders, strict=True):
        assert torch.equal(found.images, expected.images)
    assert loaders[0].truncated == loaders[1].truncated == ["/elsewhere/images/test0.png"] * read
    assert loaders[0].skipped == loaders[1].skipped == ["/elsewhere/images/test0.png"] * (not read)


def test_photographs_that_are_turned_upright_are_another_pack(packed):
    cfg = packed.config("DATASETS.PACK", str(packed.pack), "INPUT.EXIF_ROTATION", "True")
    with pytest.raises(PackError, match=r"has images of 32 x 32 pixels \(bilinear\), and .*, turned upright"):
        build_test(cfg, "test")


def test_an_image_with_too_many_pixels_is_refused_as_its_file_is(packed):
    pack = Pack.open(packed.pack / "test", "32 x 32 pixels (bilinear)", torch.clone)
    name = next(iter(pack.known))
    assert pack.find(name, read_truncated=True, most_pixels=36 * 40) is not None
    assert pack.find(name, read_truncated=True, most_pixels=36 * 40 - 1) is None


def test_an_image_that_has_changed_since_is_refused_by_readers_and_by_the_tool(packed, capsys):
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(packed.data / "images" / "train0.png")
    cfg = packed.config(*DEVICE, "DATASETS.PACK", str(packed.pack))
    with pytest.raises(PackError, match=r"'/elsewhere/images/train0\.png' is another file than was packed in"):
        build_train(cfg)
    assert packed.pack_again() == 2
    assert "is another file than was packed" in capsys.readouterr().err


def test_images_without_a_manifest_are_not_added_to(packed, capsys):
    (packed.pack / "train" / "pack.json").unlink()
    assert packed.pack_again() == 2
    assert "has images and no pack.json: remove the folder" in capsys.readouterr().err


def test_another_size_needs_another_folder(packed, capsys):
    before = content(packed.pack)
    assert packed.pack_again("INPUT.SIZE_TRAIN", "(16,16)") == 2
    assert "pixels (bicubic) are needed: pack into another folder" in capsys.readouterr().err
    assert content(packed.pack) == before


def test_two_processes_do_not_pack_into_one_folder(packed):
    program = (
        "import sys, time; from pathlib import Path; from engine.claim import claimed; c = claimed(Path(sys.argv[1]))"
    )
    line = [sys.executable, "-c", f"{program}; c.__enter__(); print('held', flush=True); time.sleep(60)"]
    with subprocess.Popen([*line, packed.pack / "train"], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ClaimError, match="another process is at work"):
            extend(packed.pack / "train", image_sets(packed.config(*pack_images.READING), "train")["train"], 0)
        process.kill()
