"""Outputs of shards: what a file holds, when it counts as done, and that none is half-written."""

import json
import os
import resource
import signal
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from engine.atomic import WriteError
from tagging.predictor import Prediction, Unreadable
from tagging.progress import OutputError
from tagging.shards import Outputs, ShardError, Tally
from tagging.shards import outputs as module

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

QUESTION = {"model": "abc", "labels": [["dog"], ["dog"], {}], "threshold": 0.5, "top": None, "score": "probability"}
ANSWERS = [
    Prediction("a.png", ("dog", "a red car"), (0.75, 0.5)),
    Unreadable("b.png", "cannot read the image b.png"),
    Prediction("c.png", (), ()),
]


class Made(NamedTuple):
    """A shard of nothing."""

    name: str = "000"
    size: int = 3

    def about(self) -> dict[str, Any]:
        return {"size": self.size}


def outputs(folder, numbers="probabilities", **other):
    return Outputs(folder, numbers, QUESTION | other)


@pytest.mark.parametrize("numbers", ["probabilities", "scores"])
def test_rows_stand_in_order_and_say_labels_or_why_there_are_none(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 2)
    out = outputs(tmp_path, numbers)
    assert out.write(Made(), ANSWERS) == Tally(3, 1)
    table = parquet.read_table(tmp_path / "000.parquet")
    texts, values = pyarrow.list_(pyarrow.string()), pyarrow.list_(pyarrow.float32())
    types = {"image": pyarrow.string(), "labels": texts, numbers: values, "error": pyarrow.string()}
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == types
    assert table.to_pylist() == [
        {"image": "a.png", "labels": ["dog", "a red car"], numbers: [0.75, 0.5], "error": None},
        {"image": "b.png", "labels": None, numbers: None, "error": "cannot read the image b.png"},
        {"image": "c.png", "labels": [], numbers: [], "error": None},
    ]


def test_the_schema_does_not_depend_on_what_was_found(tmp_path):
    out = outputs(tmp_path)
    out.write(Made("some"), ANSWERS)
    out.write(Made("none"), ANSWERS[2:])
    one, other = (parquet.read_schema(tmp_path / f"{name}.parquet").remove_metadata() for name in ("some", "none"))
    assert one.equals(other)


def test_the_same_answers_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        outputs(tmp_path / name).write(Made(), iter(ANSWERS))
    assert (tmp_path / "a/000.parquet").read_bytes() == (tmp_path / "b/000.parquet").read_bytes()


def test_names_that_are_no_utf8_are_written_out(tmp_path):
    name = os.fsdecode(b"\xff.png")
    outputs(tmp_path).write(Made(), [Unreadable(name, f"no {name}"), ANSWERS[0]])
    first = parquet.read_table(tmp_path / "000.parquet").to_pylist()[0]
    assert (first["image"], first["error"]) == ("\\udcff.png", "no \\udcff.png")


def test_a_shard_is_finished_once_its_file_is_written(tmp_path):
    assert outputs(tmp_path).finished(Made()) is None
    outputs(tmp_path).write(Made(), ANSWERS)
    assert outputs(tmp_path).finished(Made()) == Tally(3, 1)
    assert outputs(tmp_path).finished(Made("001")) is None


@pytest.mark.parametrize(
    ("other", "said"),
    [({"threshold": 0.6}, "threshold"), ({"labels": [], "model": "x"}, "model, labels"), ({"new": 1}, "new")],
)
def test_an_output_of_another_question_is_refused_by_what_differs(tmp_path, other, said):
    outputs(tmp_path).write(Made(), ANSWERS)
    line = f"000.parquet was made with other values of {said}: ask the same, or name another --out"
    with pytest.raises(OutputError, match=line):
        outputs(tmp_path, **other).finished(Made())


def test_an_output_of_other_pictures_is_refused(tmp_path):
    outputs(tmp_path).write(Made(), ANSWERS)
    with pytest.raises(OutputError, match="000.parquet is of other pictures than 000 now: remove it"):
        outputs(tmp_path).finished(Made(size=4))


@pytest.mark.parametrize("kind", ["text", "other parquet", "folder", "other json"])
def test_another_file_in_its_place_is_refused_and_stays(tmp_path, kind):
    path = tmp_path / "000.parquet"
    if kind == "text":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir()
    else:
        schema = pyarrow.schema({"a": pyarrow.int64()})
        about = {module.KEY: json.dumps({"question": {}}).encode()} if kind == "other json" else {}
        parquet.write_table(schema.with_metadata(about).empty_table(), path)
    with pytest.raises(OutputError, match=r"000\.parquet is there already and is none of this: remove it, or name"):
        outputs(tmp_path).finished(Made())
    assert path.exists()


def test_a_shard_of_which_no_picture_can_be_read_is_not_written(tmp_path):
    with pytest.raises(ShardError, match=r"^000: none of its pictures can be read, 2 in all: cannot read the image b"):
        outputs(tmp_path).write(Made(), [ANSWERS[1], ANSWERS[1]])
    with pytest.raises(ShardError, match=r"^000: none of its pictures can be read, 0 in all$"):
        outputs(tmp_path).write(Made(), [])
    assert not (tmp_path / "000.parquet").exists()


def test_if_a_shard_fails_on_the_way_nothing_is_written(tmp_path):
    def answers():
        yield from ANSWERS
        raise ShardError("000 is cut short")

    with pytest.raises(ShardError, match="cut short"):
        outputs(tmp_path).write(Made(), answers())
    assert [path.name for path in tmp_path.iterdir()] == [".claims"]


@contextmanager
def full_disk():
    """The system refuses files of more than 200 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[0][1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    out = outputs(tmp_path)
    with full_disk(), pytest.raises(WriteError, match=r"000\.parquet: cannot write, File too large"):
        out.write(Made(), ANSWERS)
    assert [path.name for path in tmp_path.iterdir()] == [".claims"]
    assert out.write(Made(), ANSWERS) == Tally(3, 1)


def test_what_was_half_written_is_swept_away_unless_somebody_is_writing_it(tmp_path, monkeypatch):
    out = outputs(tmp_path)
    for name in (".000.parquet.ab12.part", ".001.parquet.cd34.part", "000.parquet", ".x.part"):
        (tmp_path / name).touch()

    @contextmanager
    def claimed(name):
        yield name == "000"

    monkeypatch.setattr(out.claims, "claimed", claimed)
    out.sweep()
    left = {".001.parquet.cd34.part", "000.parquet", ".x.part", ".claims"}
    assert {path.name for path in tmp_path.iterdir()} == left
