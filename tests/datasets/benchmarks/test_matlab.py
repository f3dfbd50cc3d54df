import os
import signal

import numpy as np
import pytest
from scipy.io import savemat

from datasets.benchmarks import matlab
from datasets.records import DataError


def cells(*values):
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


@pytest.fixture
def path(tmp_path):
    savemat(tmp_path / "a.mat", {"names": cells(" Hat ", "Größe"), "label": np.array([[0, 1]], dtype=np.uint8)})
    return tmp_path / "a.mat"


def test_texts_come_out_of_their_cells(path):
    assert matlab.texts(matlab.load(path, "names")["names"], "a") == ("Hat", "Größe")


def test_texts_of_equal_length_are_read_from_a_table_of_characters(tmp_path):
    savemat(tmp_path / "a.mat", {"names": np.array(["ab", "cd"])})
    assert matlab.texts(matlab.load(tmp_path / "a.mat", "names")["names"], "a") == ("ab", "cd")


@pytest.mark.parametrize(("value", "shown"), [("", r"\[\]"), (3.0, r"\[\[3"), (cells("a", "b"), "array")])
def test_a_cell_without_a_text_is_named(tmp_path, value, shown):
    savemat(tmp_path / "a.mat", {"names": cells("Hat", value)})
    with pytest.raises(DataError, match=rf"^where, cell 2: expected a text, found .*{shown}"):
        matlab.texts(matlab.load(tmp_path / "a.mat", "names")["names"], "where")


def test_a_missing_variable_is_named(path):
    with pytest.raises(DataError, match=r"a\.mat: there is no variable 'train_label'"):
        matlab.load(path, "names", "train_label")


def test_a_file_of_version_7_3_is_told_from_a_broken_one(tmp_path):
    header = b"MATLAB 7.3 MAT-file".ljust(124) + (0x0200).to_bytes(2, "little") + b"IM"
    (tmp_path / "a.mat").write_bytes(header + bytes(512))
    with pytest.raises(DataError, match=r"a\.mat: a MATLAB file of version 7\.3.*'-v7'"):
        matlab.load(tmp_path / "a.mat", "names")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n" * 40], ids=["empty", "html"])
def test_a_file_that_is_no_matlab_file_is_one_clear_line(tmp_path, content):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat: cannot be read as a MATLAB file, download it again: [^\n]+$"):
        matlab.load(tmp_path / "a.mat", "names")


def test_a_truncated_file_is_one_clear_line(path):
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"a\.mat: cannot be read as a MATLAB file, download it again: [^\n]+$"):
        matlab.load(path, "names", "label")


def test_codes_become_names_in_the_order_of_the_columns():
    table = np.array([[0, 2, 1], [0, 0, 0]])
    rows = matlab.label_rows(table, ["a", "b", "c"], where="x", positive=(1, 2), negative=(0,))
    assert rows == [("b", "c"), ()]


@pytest.mark.parametrize("code", [3, -1, 0.5, np.nan])
def test_an_unknown_code_is_named_with_row_and_attribute(code):
    table = np.array([[0, 1], [1, code]])
    with pytest.raises(DataError, match=rf"^x, row 2, attribute 'b': {code} is none of 0, 1$"):
        matlab.label_rows(table, ["a", "b"], where="x", positive=(1,), negative=(0,))


@pytest.mark.parametrize("shape", [(2, 3), (2,), (1, 2, 2)])
def test_a_table_of_another_width_is_refused(shape):
    with pytest.raises(DataError, match=r"^x: expected a column for each of 2 attributes, found shape"):
        matlab.label_rows(np.zeros(shape), ["a", "b"], where="x", positive=(1,), negative=(0,))


def test_a_file_that_crashes_the_reader_is_one_line(tmp_path, monkeypatch):
    savemat(tmp_path / "a.mat", {"x": [1]})
    monkeypatch.setattr("scipy.io.loadmat", lambda *_, **__: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(DataError, match=r"a\.mat: it crashes the reader of MATLAB files: damaged, download it again$"):
        matlab.load(tmp_path / "a.mat", "x")
