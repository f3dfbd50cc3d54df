"""Parity files of our own: complete, reproducible, and read by the comparison."""

from pathlib import Path

import numpy as np
import pytest

from engine import cli
from tools import check_parity, make_parity

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--backbone", "ViT-tiny-8", "--steps", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("parity") / "tiny.npz"
    assert make_parity.main([*TINY, "--out", str(path)]) == 0
    return path


def test_the_file_passes_the_comparison_and_leaves_nothing_unread(made, capsys):
    assert check_parity.main([str(made)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(check_parity.LIMITS)


def test_it_has_the_keys_of_the_releases_file(made):
    def kinds(path):
        with np.load(path) as file:
            return {key for key in file.files if not key.startswith(("clip/", "param/", "grad/"))}

    assert kinds(made) - {"head_width.visual", "head_width.text"} == kinds(ROOT / "tests" / "data" / "release_open.npz")


def test_floating_point_inputs_are_exact_in_half_precision(made):
    with np.load(made) as file:
        for key in file.files:
            if key.startswith(("clip/", "param/", "image")) and key != "clip/logit_scale":
                assert file[key].dtype in (np.float16, np.int32)


def test_the_seed_decides_everything(made, tmp_path):
    def written(name, seed):
        make_parity.main([*TINY, "--seed", seed, "--out", str(tmp_path / name)])
        with np.load(tmp_path / name) as file:
            return dict(file)

    again, other = written("a.npz", "0"), written("b.npz", "1")
    with np.load(made) as file:
        assert all(np.array_equal(file[key], again[key]) for key in file.files)
        for key in ("clip/visual.proj", "image", "target", "param/visual.2.prompts", "eval/gzsl.score"):
            assert not np.array_equal(file[key], other[key])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "x.pt"], "--out x.pt: name an .npz file"),
        (["--out", "nowhere/x.npz"], "in a folder that exists"),
        (["--batch", "0", "--out", "x.npz"], "--batch 0 --steps 2: both have to be 1 or more"),
        (["--steps", "0", "--out", "x.npz"], "--batch 2 --steps 0: both have to be 1 or more"),
        (["--backbone", "RN50", "--out", "x.npz"], "--backbone RN50 is a ResNet, and RAM needs a ViT"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_code_2(arguments, said, capsys):
    assert cli.run(lambda: make_parity.main(arguments)) == 2
    assert said in capsys.readouterr().err


def test_the_script_runs_from_any_folder(tmp_path, forked):
    done = forked(ROOT / "tools" / "make_parity.py", "--help", cwd=tmp_path)
    assert done.wait() == 0
    assert "--backbone" in done.stdout
