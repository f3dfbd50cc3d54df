"""Tables over seeds."""

import json

import numpy as np
import pytest

from tools.results_table import COLUMNS, main


def written(path, values, method="RAM"):
    path.write_text(json.dumps({method: {"ZSL": {"images": 3, **dict.fromkeys(COLUMNS, 0.0), "F1@3": values}}}))
    return str(path)


def test_mean_and_sample_standard_deviation_of_the_seeds(tmp_path, capsys):
    values = [60.0, 61.5, 64.25]
    assert main([written(tmp_path / f"{i}.json", v) for i, v in enumerate(values)]) == 0
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2])
def test_equal_values_have_no_spread(tmp_path, capsys, count):
    assert main([written(tmp_path / f"{i}.json", 50.0) for i in range(count)]) == 0
    assert "| RAM | ZSL | 0.0 | 0.0 | 50.0 |" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{", '{"RAM": {"ZSL": {}}}', '{"RAM": 3}'])
def test_a_file_of_something_else_is_one_line_and_code_2(tmp_path, capsys, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} holds no results")


def test_files_of_different_methods_are_refused(tmp_path, capsys):
    files = [written(tmp_path / "a.json", 1.0), written(tmp_path / "b.json", 1.0, method="CLIP")]
    assert main(files) == 2
    assert "different methods" in capsys.readouterr().err
