"""The check of a configuration's data from the command line."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.formats.release import dump
from datasets.records import Records
from engine import cli
from tools import check_data

TINY = Path(__file__).parents[2] / "configs" / "tiny.yml"


def write_list(root, name, rows, classes, origin=None):
    images = tuple(f"images/{name}{i}.png" for i in range(len(rows)))
    (root / f"{name}.json").write_text(dump(Records(images, tuple(map(tuple, rows)), classes, name, (), origin or {})))
    for image in images:
        Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(root / image)


@pytest.fixture
def root(tmp_path):
    """Three training images of a and b, and two test images of a and c, none of x; as prepare_data.py writes lists."""
    (tmp_path / "images").mkdir()
    origin = {"rule": "the rule of few", "exact": True}
    write_list(tmp_path, "train", [["a"], ["a", "b"], []], ("a", "b"), origin)
    write_list(tmp_path, "test", [["a"], ["c", "a"]], ("a", "b", "c", "x"), origin)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys, root):
    def run(*arguments, options=()):
        keys = ["DATASETS.ROOT_DIR", str(root), "DATASETS.TRAIN", "train.json", "DATASETS.TEST", "test.json",
                "DATASETS.VAL", "", "DATASETS.NAMES", "few", "SOLVER.IMS_PER_BATCH", "2"]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["check_data.py", *options, str(TINY), *keys, *map(str, arguments)])
        code = cli.run(check_data.main)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def row(said, name):
    return next(line for line in said.splitlines() if line.startswith(f"{name} ")).split()


def test_complete_data_are_code_0_and_a_row_for_each_list(run):
    code, said, _ = run()
    assert code == 0
    #                            images  published  labels  labels/image  none  without image  missing  unreadable
    assert row(said, "train") == ["train", "3", "-", "2", "1.000", "1", "0", "0", "0"]
    assert row(said, "test") == ["test", "2", "-", "4", "1.500", "0", "2", "0", "0"]
    assert said.endswith("everything that training needs is there\n")


def test_labels_without_an_image_and_the_origin_are_told(run):
    _, said, _ = run()
    assert "test: no image has 'b', 'x'" in said
    assert "labels: 2 seen, 2 unseen\n" in said
    assert "origin: the rule of few" in said


def test_sizes_are_compared_with_the_published_ones(run):
    code, said, _ = run("DATASETS.NAMES", "COCO_ZS")
    assert code == 0
    assert row(said, "train")[:4] == ["train", "3", "44,909", "DIFFERS"]
    assert "published: 48 seen, 17 unseen" in said


def test_a_missing_image_is_told_and_code_1(run, root):
    (root / "images" / "test1.png").unlink()
    code, said, _ = run()
    assert code == 1
    assert row(said, "test")[-2:] == ["1", "0"]
    assert "PROBLEM: no image 'images/test1.png'" in said


def test_an_unreadable_image_is_told_and_code_1(run, root):
    (root / "images" / "train0.png").write_bytes(b"no image")
    code, said, _ = run()
    assert code == 1
    assert row(said, "train")[-2:] == ["0", "1"]
    assert "train0.png" in next(line for line in said.splitlines() if line.startswith("PROBLEM: cannot read"))


@pytest.mark.parametrize("read", [True, False])
def test_a_truncated_image_is_a_problem_if_training_does_not_read_it(run, root, read):
    path = root / "images" / "train0.png"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, said, _ = run("DATALOADER.READ_TRUNCATED", str(read))
    assert code == (0 if read else 1)
    assert row(said, "train")[-2:] == ["0", "0" if read else "1"]
    assert ("cut short, each used as far as it goes (DATALOADER.READ_TRUNCATED): 'images/train0.png'" in said) == read


def test_a_quick_check_only_looks_whether_images_are_there(run, root):
    (root / "images" / "train0.png").write_bytes(b"no image")
    code, said, _ = run(options=["--quick"])
    assert code == 0
    assert row(said, "train")[-2:] == ["not", "checked"]


def test_all_problems_go_to_a_report_and_the_first_to_the_screen(run, root, tmp_path, monkeypatch):
    monkeypatch.setattr(check_data, "SHOWN", 1)
    for name in ("train0", "train2", "test0"):
        (root / "images" / f"{name}.png").unlink()
    _, said, _ = run(options=["--report", str(tmp_path / "report.csv")])
    assert said.count("PROBLEM: no image") == 1
    assert "... and 2 more missing images; --report FILE" in said
    head, *rows = csv.reader((tmp_path / "report.csv").read_text().splitlines())
    assert head == ["image", "kind", "message"]
    assert {(image, kind) for image, kind, _ in rows} == {
        ("images/train0.png", "missing"), ("images/train2.png", "missing"), ("images/test0.png", "missing"),
    }  # fmt: skip


def test_every_list_that_cannot_be_read_is_told_at_once(run, root):
    (root / "train.json").unlink()
    (root / "test.json").write_text("{")
    code, said, _ = run()
    assert code == 1
    problems = [line for line in said.splitlines() if line.startswith("PROBLEM")]
    assert len(problems) == 2
    assert problems[0].startswith(f"PROBLEM: train: no annotation file {root}/train.json")
    assert problems[1].startswith(f"PROBLEM: test: {root}/test.json, line 1")


def test_lists_that_contradict_each_other_are_a_problem(run, root):
    write_list(root, "test", [["a"]], ("a", "b"))
    code, said, _ = run()
    assert code == 1
    assert "PROBLEM: no unseen labels" in said


def test_a_missing_root_is_a_problem(run):
    code, said, _ = run("DATASETS.ROOT_DIR", "/no/such/folder")
    assert code == 1
    assert "PROBLEM: there is no folder '/no/such/folder'" in said


def test_fewer_images_than_a_batch_are_a_problem(run):
    code, said, _ = run("SOLVER.IMS_PER_BATCH", "4")
    assert code == 1
    assert "PROBLEM: 3 training images are fewer than SOLVER.IMS_PER_BATCH" in said


def test_a_list_that_was_changed_by_hand_is_told(run, root):
    content = json.loads((root / "test.json").read_text())
    content["images"][0][1].append("b")
    (root / "test.json").write_text(json.dumps(content))
    code, said, _ = run()
    assert code == 0
    assert f"test: {root}/test.json was changed after prepare_data.py wrote it" in said


def test_test_images_that_are_not_the_papers_are_told(run, root):
    write_list(root, "test", [["c"]], ("a", "b", "c"), {"exact": False})
    assert "are not known to be the paper's" in run()[1]


def test_lists_that_were_cut_are_checked_as_they_are_cut(run):
    code, said, _ = run("DATASETS.TEST", "", "DATASETS.TEST_FRACTION", "0.34", "DATASETS.CHOOSE", "none")
    assert code == 0
    assert (row(said, "train")[1], row(said, "test")[1]) == ("2", "1")


def test_the_embedded_world_needs_no_images(run):
    code, said, _ = run("DATASETS.TRAIN", "shapes:train", "DATASETS.TEST", "shapes:test")
    assert code == 0
    assert row(said, "train")[1:4] == ["6,000", "-", "48"]


def test_several_processes_find_the_same(run, root, monkeypatch):
    monkeypatch.setattr(check_data, "CHUNK", 1)
    monkeypatch.setattr(check_data.multiprocessing, "cpu_count", lambda: 2)
    (root / "images" / "train0.png").write_bytes(b"no image")
    (root / "images" / "test1.png").unlink()
    assert run("DATALOADER.NUM_WORKERS", "2")[:2] == run()[:2]


def test_a_configuration_that_is_not_there_is_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check_data.py", "none.yml"])
    assert cli.run(check_data.main) == 2
    assert capsys.readouterr().err.startswith("error: cannot read the configuration none.yml")
