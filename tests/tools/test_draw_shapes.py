"""Scenes of the embedded world as files."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.formats.table import read_table
from datasets.shapes import scene, scene_labels
from engine import cli
from tools import draw_shapes


@pytest.fixture
def draw(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["draw_shapes.py", *map(str, arguments)])
        return cli.run(draw_shapes.main)

    return run


def test_the_files_are_the_first_scenes_of_the_split(draw, tmp_path):
    assert draw(tmp_path / "new" / "folder", "--count", 3, "--split", "val") == 0
    for index in range(3):
        file = tmp_path / "new" / "folder" / f"val-{index:04d}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(scene("val", index).image))


def test_training_reads_the_table_of_labels(draw, tmp_path):
    draw(tmp_path, "--count", 4)
    records = read_table(Path(tmp_path / "labels.csv"))
    assert list(records.images) == [f"test-{index:04d}.png" for index in range(4)]
    assert [set(labels) for labels in records.labels] == [set(scene_labels("test", index)) for index in range(4)]


@pytest.mark.parametrize("count", [0, 2_001])
def test_more_scenes_than_there_are_is_one_line_and_no_file(draw, tmp_path, capsys, count):
    assert draw(tmp_path, "--count", count) == 2
    assert capsys.readouterr().err == f"error: --count {count}: the split test of shapes has scenes from 1 to 2,000\n"
    assert list(tmp_path.iterdir()) == []
