"""Loaders that are measured."""

import os

from PIL import Image

from tools.benchmarking import loading
from tools.benchmarking.loading import measure, write_photographs
from tools.benchmarking.measuring import Setting


def test_training_and_test_images_are_read_here_and_by_workers(quick, monkeypatch):
    monkeypatch.setattr(loading, "PHOTOGRAPHS", {True: 32, False: 32})
    monkeypatch.setattr(loading, "SIZE", (16, 12))
    monkeypatch.setattr(Setting, "repeats", 1)
    found = [(one.case, one.quantity) for one in measure(quick._replace(quick=False))]
    kinds = [f"{kind} images, {place}" for place in ("this process", f"{os.cpu_count()} workers")
             for kind in ("training", "test")]  # fmt: skip
    cases = [f"loader, {name}" for name in ("decoding and shrinking", *kinds)]
    assert list(dict.fromkeys(case for case, _ in found)) == cases
    of_this_process = [case for case, quantity in found if quantity == "speed by processor time"]
    assert of_this_process == cases[:3]
    assert list(dict.fromkeys(one.case for one in measure(quick))) == cases[:3]  # quick: workers take long to start


def test_photographs_are_jpeg_files_of_one_size_with_a_list(tmp_path):
    paths = write_photographs(tmp_path, 3)
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.size) == ("JPEG", (640, 480))
        assert 30_000 < path.stat().st_size < 120_000
    lines = (tmp_path / "list.csv").read_text().splitlines()
    assert lines == ["image,labels", "0.jpg,label 0", "1.jpg,label 1", "2.jpg,label 2"]
