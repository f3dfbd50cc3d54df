"""The tools on places that are not there and on names that no disk takes: one line, and exit code 2."""

import importlib
import sys
from pathlib import Path

import pytest

from engine import cli

ROOT = Path(__file__).parent.parent
LONG = "n" * 300  # file systems take names of 255 bytes
TINY = str(ROOT / "configs" / "tiny.yml")
CASES = [
    ("benchmark", "--compare", "gone.json"), ("benchmark", "machine", "--quick", "--json", "/dev/null/x/y.json"),
    ("benchmark", "--write", "/dev/null/x.md"),
    ("calibrate", "gone"), ("check_parity", "gone.npz"), ("compare", "gone"), ("draw_scenes", "/dev/null/x"),
    ("evaluate_scores", "gone.npz"), ("index_images", "gone", "--out", "index"), ("localise", "gone"),
    ("make_parity", "--backbone", "ViT-tiny-8", "--out", "gone/x.npz"),
    ("search_images", "gone", "dog"), ("show_scenes", "gone/x.png"), ("chaos", "--keep", "/dev/null/x"),
    ("visualize", "gone.png", "--run", "gone", "--out", "figures"),
    ("benchmark", "--compare", LONG), ("benchmark", "--write", LONG),
    ("calibrate", LONG), ("check_parity", f"{LONG}.npz"), ("compare", LONG), ("draw_scenes", LONG),
    ("evaluate_scores", f"{LONG}.npz"), ("localise", LONG), ("search_images", LONG, "dog"),
    ("show_scenes", f"{LONG}.png"), ("chaos", "--keep", LONG),
    ("reproduce", "--table", "11", "--config_file", TINY, "--out", LONG),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case)[:40])
def test_a_place_that_cannot_be_is_one_line_and_code_2(case, tmp_path, monkeypatch, capsys):
    name, *arguments = case
    tool = importlib.import_module(f"tools.{name}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    assert cli.run(tool.main) == 2
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert [line[:7] for line in lines if "signal/s" not in line and line.strip()] == ["error: "]
    assert list(tmp_path.iterdir()) == []
