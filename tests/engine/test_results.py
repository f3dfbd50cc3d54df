import csv
import io
import json
import os
import zipfile

import numpy as np
import pytest

import engine.atomic
from engine.atomic import WriteError
from engine.metrics import Metrics, measure
from engine.results import (
    Result,
    ResultsError,
    ScoresError,
    format_table,
    read_scores,
    write_results,
    write_scores,
)

NAMES = ["red circle", 'blue "star", café', "green ring", "black cross"]
ABOUT = {"date": "2026-01-01", "config": {"SOLVER.SEED": 1}, "checkpoint": None}
IMAGES = [f"train/{i}.jpg" for i in range(6)]


@pytest.fixture
def scores():
    return np.random.default_rng(0).random((6, 4)).astype(np.float32)


@pytest.fixture
def targets():
    return np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])


@pytest.fixture
def results(scores, targets):
    return [
        Result("RAM", "ZSL", measure(scores[:, :3], targets[:, :3]), NAMES[:3]),
        Result("RAM", "GZSL", measure(scores, targets), NAMES),
        Result("zero-shot CLIP", "GZSL", measure(-scores, targets, threshold=-0.5), NAMES),
    ]


@pytest.fixture
def arrays(scores, targets):
    return {"scores": scores, "targets": targets, "names": np.array(NAMES), "images": np.array(IMAGES)}


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_each_result_in_its_order_with_two_decimals(results):
    lines = format_table(results).split("\n")
    for line, result in zip(lines[2:], results, strict=True):
        summary = result.metrics.summary
        keys = ["P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "mAP", "mAP_present", "CF1@3", "OP", "OR", "OF1", "CP",
                "CR", "CF1"]  # fmt: skip
        values = [f"{summary[key]:.2f}" if key in summary else "-" for key in keys]
        assert line.split() == [*result.method.split(), result.protocol, *values]


def test_the_columns_of_the_table_are_aligned(results):
    header, rule, *rows = format_table(results).split("\n")
    assert rule.replace("-", "").strip() == ""
    ends = [i for i in range(len(rule)) if rule[i] == "-" and rule[i + 1 : i + 2] != "-"]
    for line in (header, *rows):
        assert len(line) == len(rule)
        assert all(line[i] != " " for i in ends[2:])  # numbers end where their column ends
        assert all(line[i + 1 : i + 3].strip() == "" for i in ends)


def test_columns_that_no_result_has_are_not_in_the_table(results):
    columns = ["method", "protocol", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "mAP", "mAP_present", "CF1@3"]
    assert format_table(results[:2]).split("\n")[0].split() == columns


def test_the_other_convention_of_map_has_a_column_where_it_says_something_else(scores):
    every = Result("RAM", "GZSL", measure(scores, np.tile([[1, 0, 1, 0], [0, 1, 0, 1]], (3, 1))), NAMES)
    assert "mAP_present" not in format_table([every])
    absent = Result("RAM", "ZSL", measure(scores[:, :2], np.tile([1, 0], (6, 1))), NAMES[:2])
    header, _, _, row = format_table([every, absent]).split("\n")
    cells = dict(zip(header.split(), row.split(), strict=True))
    assert (cells["mAP"], cells["mAP_present"]) == ("50.00", "100.00")


def test_what_another_task_measures_has_columns_of_its_own(results):
    pixels = Result("RAM", "masks", Metrics({"mIoU": 41.5, "accuracy": 80.0}, {}, {}), NAMES)
    header, _, *rows = format_table([results[0], pixels]).split("\n")
    assert header.split()[-2:] == ["mIoU", "accuracy"]
    assert [row.split()[-2:] for row in rows] == [["-", "-"], ["41.50", "80.00"]]


def test_a_table_of_nothing_is_its_header():
    assert format_table([]).split("\n")[0] == "method  protocol"


def test_results_json_nests_method_and_protocol_and_is_exact(tmp_path, results):
    write_results(tmp_path, results, ABOUT)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert content["about"] == ABOUT
    read = content["results"]
    assert {method: list(protocols) for method, protocols in read.items()} == {
        "RAM": ["ZSL", "GZSL"],
        "zero-shot CLIP": ["GZSL"],
    }
    for method, protocol, metrics, _ in results:
        assert read[method][protocol] == {**metrics.summary, **metrics.counts}


def test_results_csv_has_a_row_per_result_and_empty_cells_where_a_metric_is_missing(tmp_path, results):
    write_results(tmp_path, results, ABOUT)
    rows = rows_of(tmp_path / "results.csv")
    assert [(row["method"], row["protocol"]) for row in rows] == [(r.method, r.protocol) for r in results]
    for row, result in zip(rows, results, strict=True):
        assert {key: float(row[key]) for key in result.metrics.summary} == result.metrics.summary
        assert int(row["images"]) == 6
    assert rows[0]["OF1"] == ""


def test_per_class_csv_has_a_row_per_label_with_its_own_values(tmp_path, results):
    write_results(tmp_path, results, ABOUT)
    rows = rows_of(tmp_path / "per_class.csv")
    assert [row["label"] for row in rows] == [*NAMES[:3], *NAMES, *NAMES]
    for row, label in zip(rows[3:7], range(4), strict=True):
        assert (row["method"], row["protocol"]) == ("RAM", "GZSL")
        for key, values in results[1].metrics.per_class.items():
            expected = values[label]
            assert row[key] == "" if np.isnan(expected) else float(row[key]) == expected


def test_the_ap_of_a_label_without_positives_is_an_empty_cell(tmp_path, results):
    write_results(tmp_path, results, ABOUT)
    assert [row["AP"] == "" for row in rows_of(tmp_path / "per_class.csv")][:3] == [False, False, True]


def test_the_folder_is_made_and_holds_three_files(tmp_path, results):
    write_results(tmp_path / "a" / "b", results, ABOUT)
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["per_class.csv", "results.csv", "results.json"]


def test_two_results_of_one_name_are_refused_and_nothing_is_written(tmp_path, results):
    with pytest.raises(ResultsError, match="two results are named 'RAM', 'ZSL'"):
        write_results(tmp_path / "a", [*results, results[0]], ABOUT)
    assert os.listdir(tmp_path) == []


def test_names_that_do_not_fit_the_classes_are_refused_and_nothing_is_written(tmp_path, results):
    with pytest.raises(ResultsError, match="RAM, GZSL: 3 names for 4 classes"):
        write_results(tmp_path / "a", [results[1]._replace(names=NAMES[:3])], ABOUT)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line_with_its_path(tmp_path, results):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError) as caught:
        write_results(tmp_path / "file", results, ABOUT)
    assert str(caught.value) == f"{tmp_path / 'file'}: cannot make the folder, File exists"


@pytest.fixture
def _full_disk(monkeypatch):
    """The disk is found full when a file is synced."""

    def fsync(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.atomic.os, "fsync", fsync)


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_is_one_line_that_names_the_file_of_results(tmp_path, results):
    with pytest.raises(WriteError) as caught:
        write_results(tmp_path, results, ABOUT)
    assert str(caught.value) == f"{tmp_path / 'results.json'}: cannot write, No space left on device"
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_leaves_the_old_file_of_scores(tmp_path, arrays):
    (tmp_path / "a.npz").write_bytes(b"old")
    with pytest.raises(WriteError, match=r"a\.npz: cannot write, No space left"):
        write_scores(tmp_path / "a.npz", **arrays)
    assert (tmp_path / "a.npz").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.npz"]


def test_scores_come_back_as_they_were_written(tmp_path, scores, targets):
    write_scores(tmp_path / "a.npz", scores, targets, NAMES, IMAGES)
    read = read_scores(tmp_path / "a.npz")
    assert read.scores.dtype == np.float32
    np.testing.assert_array_equal(read.scores, scores)
    np.testing.assert_array_equal(read.targets, targets)
    assert (read.names, read.images) == (NAMES, IMAGES)


def test_a_file_of_scores_has_exactly_these_arrays_and_the_name_that_was_asked_for(tmp_path, scores, targets):
    write_scores(tmp_path / "scores", scores, targets, NAMES, IMAGES)
    assert os.listdir(tmp_path) == ["scores"]
    with np.load(tmp_path / "scores", allow_pickle=False) as file:
        kinds = {key: file[key].dtype.kind for key in file}
    assert kinds == {"scores": "f", "targets": "u", "names": "U", "images": "U"}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("targets", np.full((6, 4), -1), "targets hold -1"),
        ("targets", np.zeros((5, 4)), r"scores are \(6, 4\), targets \(5, 4\)"),
        ("scores", np.full((6, 4), np.nan), "24 of 24 scores are not finite"),
        ("names", np.array(NAMES[:3]), r"names are <U\d+ \(3,\), expected are 4 of text"),
        ("images", np.array(IMAGES[:5]), r"images are <U\d+ \(5,\), expected are 6 of text"),
        ("images", np.array([IMAGES]), r"images are <U\d+ \(1, 6\), expected are 6 of text"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_writing_and_in_reading(tmp_path, arrays, key, value, message):
    arrays[key] = value
    with pytest.raises(ScoresError, match=rf"new\.npz: {message}"):
        write_scores(tmp_path / "new.npz", **arrays)
    assert os.listdir(tmp_path) == []
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(ScoresError, match=rf"old\.npz: {message}"):
        read_scores(tmp_path / "old.npz")


def test_names_that_are_not_text_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays | {"names": np.arange(4)})
    with pytest.raises(ScoresError, match=r"a\.npz: names are int64 \(4,\), expected are 4 of text"):
        read_scores(tmp_path / "a.npz")


def test_a_missing_and_an_unknown_array_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "more.npz", **arrays, logits=arrays["scores"])
    del arrays["images"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(ScoresError, match=r"less\.npz: its arrays are scores, targets, names; expected are"):
        read_scores(tmp_path / "less.npz")
    with pytest.raises(ScoresError, match=r"more\.npz: its arrays are .*, logits; expected are"):
        read_scores(tmp_path / "more.npz")


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ScoresError) as caught:
        read_scores(tmp_path / "a.npz")
    assert str(caught.value) == f"{tmp_path / 'a.npz'}: cannot be read, No such file or directory"


def test_a_single_array_is_not_a_file_of_scores(tmp_path, scores):
    np.save(tmp_path / "a.npy", scores)
    with pytest.raises(ScoresError, match=r"a\.npy: its arrays are none; expected are"):
        read_scores(tmp_path / "a.npy")


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_content_is_refused_and_never_run(tmp_path, arrays):
    trap = np.empty(4, object)
    trap[:] = [Trap(tmp_path / "ran")] * 4
    np.savez(tmp_path / "a.npz", **arrays | {"names": trap})
    with pytest.raises(ScoresError, match=r"not an intact \.npz of plain arrays"):
        read_scores(tmp_path / "a.npz")
    assert not (tmp_path / "ran").exists()


def empty(path, _):
    path.touch()


def badly_compressed(path, arrays):
    np.savez_compressed(path, **arrays)
    content = bytearray(path.read_bytes())
    start = content.index(b"scores.npy") + len("scores.npy")
    content[start + 20 : start + 40] = b"\xff" * 20  # what follows 20 bytes of zip64 sizes
    path.write_bytes(content)


def beyond_any_memory(path, _):
    """The header of one array claims 8 exabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**9)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("scores.npy", header.getvalue())


@pytest.mark.parametrize(
    ("broken", "reason"), [(empty, "EOFError"), (badly_compressed, "error"), (beyond_any_memory, "MemoryError")]
)
def test_a_broken_file_is_one_line_whatever_is_broken(tmp_path, arrays, broken, reason):
    broken(tmp_path / "a.npz", arrays)
    with pytest.raises(ScoresError, match=rf"a\.npz: cannot be read, not an intact .* \({reason}\)$"):
        read_scores(tmp_path / "a.npz")


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_one_line_or_reads_as_before(tmp_path, arrays, seed):
    path = tmp_path / "a.npz"
    write_scores(path, **arrays)
    whole, rng = path.read_bytes(), np.random.default_rng(seed)
    messages = []
    for cut in rng.integers(len(whole), size=40):
        damaged = bytearray(whole)
        damaged[cut] ^= 1 << int(rng.integers(8))
        for content in (whole[:cut], bytes(damaged)):
            path.write_bytes(content)
            try:
                np.testing.assert_array_equal(read_scores(path).scores, arrays["scores"])
            except ScoresError as error:
                messages.append(str(error))
    assert len(messages) >= 40  # every cut, at least
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)
