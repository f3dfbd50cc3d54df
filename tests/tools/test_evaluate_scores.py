import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from engine.results import write_scores
from tools.evaluate_scores import main

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "evaluate_scores.py"
NAMES = ["red circle", "blue star", "green ring", "black cross"]


@pytest.fixture
def scores():
    return np.random.default_rng(0).permutation(40).reshape(10, 4) / 40


@pytest.fixture
def targets():
    targets = np.random.default_rng(1).integers(2, size=(10, 4))
    targets[:, 2] = 0
    return targets


@pytest.fixture
def file(tmp_path, scores, targets):
    path = tmp_path / "scores.npz"
    write_scores(path, scores, targets, NAMES, [f"{i}.jpg" for i in range(10)])
    return str(path)


def test_the_table_shows_the_recomputed_metrics_of_each_file(tmp_path, file, scores, targets, capsys):
    other = str(tmp_path / "other.npz")
    write_scores(other, 1 - scores, targets, NAMES, [f"{i}.jpg" for i in range(10)])
    assert main([file, other]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    for row, path, scored in zip(rows, (file, other), (scores, 1 - scores), strict=True):
        cells = dict(zip(header.split(), row.split(), strict=True))
        chosen = (scored >= np.sort(scored, axis=1)[:, -3, None]).astype(int)
        aps = [average_precision_score(targets[:, c], scored[:, c]) for c in (0, 1, 3)]
        assert cells["method"] == path
        assert cells["F1@3"] == f"{100 * f1_score(targets, chosen, average='micro'):.2f}"
        assert cells["mAP"] == f"{100 * sum(aps) / 4:.2f}"
    assert "OF1" not in header


def test_a_threshold_adds_its_columns(file, scores, targets, capsys):
    assert main([file, "--threshold", "0.5"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split(), row.split(), strict=True))
    assert cells["OF1"] == f"{100 * f1_score(targets, (scores >= 0.5).astype(int), average='micro'):.2f}"


def test_json_holds_the_metrics_unrounded(tmp_path, file, scores, targets):
    assert main([file, "--json", str(tmp_path / "out.json")]) == 0
    read = json.loads((tmp_path / "out.json").read_text())["results"][file]["-"]
    aps = [average_precision_score(targets[:, c], scores[:, c]) for c in (0, 1, 3)]
    assert read["mAP_present"] == pytest.approx(100 * np.mean(aps), rel=1e-12)
    assert read["images"] == 10


def test_per_class_lists_labels_by_ap_and_those_without_positives_last(file, scores, targets, capsys):
    assert main([file, "--per-class"]) == 0
    path, header, *lines = capsys.readouterr().out.split("\n\n")[1].splitlines()
    aps = {NAMES[c]: 100 * average_precision_score(targets[:, c], scores[:, c]) for c in (0, 1, 3)}
    best_first = sorted(aps, key=aps.get, reverse=True)
    assert (path, header.split()) == (file, ["label", "positives", "AP"])
    expected = [(name, str(targets[:, NAMES.index(name)].sum()), f"{aps[name]:.2f}") for name in best_first]
    assert [tuple(line.rsplit(maxsplit=2)) for line in lines] == [*expected, ("green ring", "0", "-")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.npz"], "missing.npz: cannot be read, No such file or directory"),
        (["scores.npz", "broken.npz"], "broken.npz: cannot be read, not an intact .npz of plain arrays (ValueError)"),
        (["scores.npz", "--threshold", "nan"], "the threshold is nan: it must be a finite number"),
        (["scores.npz", "scores.npz", "--json", "out"], "two results are named 'scores.npz', '-'"),
        (["scores.npz", "--json", "no/out"], "no/out: cannot write, No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr_and_exit_code_2(
    file, tmp_path, monkeypatch, capsys, arguments, message
):
    assert os.path.basename(file) == "scores.npz"
    monkeypatch.chdir(tmp_path)
    Path("broken.npz").write_bytes(b"no archive")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == ["broken.npz", "scores.npz"]


def test_it_runs_as_a_script_from_any_folder(file, tmp_path, forked):
    done = forked(SCRIPT, file, cwd=tmp_path)
    assert done.wait() == 0
    assert done.stdout.startswith("method")
    failed = forked(SCRIPT, "no", cwd=tmp_path)
    assert (failed.wait(), failed.stderr.count("\n")) == (2, 1)
