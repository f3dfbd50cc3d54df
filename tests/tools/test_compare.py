"""Runs beside each other: recipes, seeds, and what is refused."""

import csv
import json
import statistics

import pytest

from tools import compare
from tools.compare import COLUMNS, main

LISTS = {"ZSL": {"images": 3, "labels": 2, "fingerprint": "ab"}}


@pytest.fixture
def written(tmp_path):
    """Writes the folder of a test."""

    def write(name, f1, *, config=(), lists=None, method="RAM", present=None, labels=()):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        row = {"images": 3, **dict.fromkeys(COLUMNS, 10.0), "F1@3": f1}
        row["mAP_present"] = row["mAP"] if present is None else present
        about = {"config": {"SOLVER.SEED": 1, "MODEL.OT_REG": 0.1, "DEVICE": name, **dict(config)}}
        about["lists"] = lists or LISTS
        (folder / "results.json").write_text(json.dumps({"about": about, "results": {method: {"ZSL": row}}}))
        with (folder / "per_class.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["method", "protocol", "label", "AP"])
            rows.writerows([method, "ZSL", label, value] for label, value in labels)
        return str(folder)

    return write


def refused(capsys, *places):
    assert main(list(places)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("text", ["NaN", "1e999", "[" * 5000, "9" * 400, "9" * 5000])
def test_numbers_that_cannot_be_computed_with_are_refused_in_one_line(tmp_path, text):
    content = '{"results": {"RAM": {"ZSL": {"mAP": %s}}}, "about": {"config": {}, "lists": {}}}' % text  # noqa: UP031
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(compare.CompareError, match=r"results\.json holds no results: "):
        compare.read(tmp_path / "results.json")


def test_runs_that_differ_in_the_seed_alone_are_mean_and_sample_deviation(written, capsys):
    values = [60.0, 61.5, 64.25]
    assert main([written(str(i), v, config={"SOLVER.SEED": i}.items()) for i, v in enumerate(values)]) == 0
    out = capsys.readouterr().out
    assert f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.2f}" in out
    assert "| RAM | ZSL | 10.0 | 10.0 | " in out
    assert "##" not in out


def test_recipes_stand_below_each_other_with_their_differences(written, capsys):
    runs = [written("a1", 60.0), written("a2", 62.0, config={"SOLVER.SEED": 2}.items()),
            written("b", 66.0, config={"MODEL.OT_REG": 0.2}.items())]  # fmt: skip
    assert main(runs) == 0
    first, second = capsys.readouterr().out.split("## 2: ")
    assert "61.0 ± 1.41" in first
    assert "66.0 (+5.0)" in second
    assert "configuration:\n* MODEL.OT_REG: 0.1 -> 0.2\n" in second


def test_labels_are_named_by_the_size_of_their_difference(written, capsys, monkeypatch):
    monkeypatch.setattr(compare, "SHOWN", 2)
    one = written("a", 60.0, labels=[("cat", 50.0), ("dog", 70.0), ("sun", 10.0), ("none", "")])
    two = written("b", 60.0, config={"MODEL.OT_REG": 1}.items(), labels=[("cat", 49.0), ("dog", 60.5), ("sun", 15.0)])
    assert main([one, two]) == 0
    lines = capsys.readouterr().out.split("AP of labels:\n")[1].splitlines()
    assert lines == ["* RAM, ZSL, dog: 70.0 -> 60.5 (-9.5)", "* RAM, ZSL, sun: 10.0 -> 15.0 (+5.0)"]


def test_both_conventions_of_map_are_shown_where_they_differ(written, capsys):
    main([written("a", 1.0)])
    assert "mAP_present" not in capsys.readouterr().out
    main([written("b", 1.0, present=12.0)])
    assert "mAP_present" in capsys.readouterr().out


def test_a_run_stands_for_its_newest_test(written, tmp_path, capsys):
    written("run/test/20260101-000000", 11.0)
    written("run/test/20260102-000000", 22.0)
    assert main([str(tmp_path / "run")]) == 0
    assert "22.0" in capsys.readouterr().out
    assert main([str(tmp_path / "run" / "test" / "20260101-000000" / "results.json")]) == 0
    assert "11.0" in capsys.readouterr().out


def test_other_images_or_labels_are_refused(written, capsys):
    other = {"ZSL": {**LISTS["ZSL"], "fingerprint": "cd"}}
    assert "has other images or labels for ZSL" in refused(capsys, written("a", 1.0), written("b", 1.0, lists=other))


def test_a_seed_that_is_there_twice_is_refused(written, capsys):
    assert "of the same recipe and seed: name one" in refused(capsys, written("a", 1.0), written("b", 2.0))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"results": {}}', '{"results": {"RAM": 3}, "about": {}}',
     '{"results": {"RAM": {"ZSL": {"mAP": "x"}}}, "about": {"config": {}, "lists": {}}}'],
)  # fmt: skip
def test_a_file_of_something_else_is_one_line_and_code_2(tmp_path, capsys, text):
    (tmp_path / "results.json").write_text(text)
    assert "holds no results" in refused(capsys, str(tmp_path))


def test_a_folder_without_a_test_is_one_line_and_code_2(tmp_path, capsys):
    assert f"{tmp_path} holds no test: run test.py first" in refused(capsys, str(tmp_path))
