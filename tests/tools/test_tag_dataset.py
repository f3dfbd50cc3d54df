"""Whole data sets from the command line: what comes out, how it is gone on with, and how it ends."""

import importlib.util
import io
import os
import resource
import shutil
import signal
import tarfile

import pytest

from tagging import Tagger
from tagging.shards import Tagging
from tools import tag_dataset
from tools.tag_dataset import main

parquet = pytest.importorskip("pyarrow.parquet")

LABELS = ("dog", "car", "a red kite")


@pytest.fixture
def data(finished, tmp_path):
    """Three archives 000 to 002 with two pictures each, and a folder with all six."""
    files = sorted((finished.data / "images").iterdir())[:6]
    (tmp_path / "photos").mkdir()
    for k, file in enumerate(files):
        shutil.copy(file, tmp_path / "photos")
        with tarfile.open(tmp_path / f"{k // 2:03}.tar", "a") as archive:
            archive.add(file, file.name)
    return tmp_path


@pytest.fixture
def tag(data, finished, monkeypatch):
    """Runs the tool on shards, by default all archives; gives the exit code."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, shards=("{000..002}.tar",), labels=LABELS, out="out"):
        places = [str(data / shard) for shard in shards]
        options = ["--run", str(finished.run), "--device", "cpu", "--labels", ", ".join(labels), "--workers", "1"]
        return main([*places, "--out", str(data / out), *options, *arguments])

    return run


def rows(data, *names, out="out"):
    return [row for name in names for row in parquet.read_table(data / out / f"{name}.parquet").to_pylist()]


def outputs(data):
    return sorted(path.name for path in (data / "out").iterdir())


def noted(monkeypatch):
    """The shards that are tagged from now on."""
    tagged, original = [], Tagging.__call__
    monkeypatch.setattr(Tagging, "__call__", lambda self, shard: tagged.append(shard.name) or original(self, shard))
    return tagged


def spoil(data, name):
    """Cuts a shard short; gives what mends it."""
    whole = (data / name).read_bytes()
    (data / name).write_bytes(whole[:2000])
    return lambda: (data / name).write_bytes(whole)


def test_each_shard_becomes_a_file_of_what_the_tagger_says(tag, data, finished, capsys):
    assert tag() == 0
    assert outputs(data) == ["000.parquet", "001.parquet", "002.parquet"]
    tagger, found = Tagger.load(finished.run), 0
    for row in rows(data, "000", "001", "002"):
        expected = tagger.tag(data / "photos" / row["image"], LABELS, threshold="best")
        assert tuple(row["labels"]) == expected.labels
        assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
        found += len(row["labels"])
    assert found > 0
    assert capsys.readouterr().out.startswith(f"{data / 'out'}: 3 shards, 6 pictures; ")


def test_a_folder_is_cut_into_shards(tag, data):
    assert tag("--pictures", "4", "--threshold", "0", shards=["photos"]) == 0
    assert outputs(data) == ["photos-00000.parquet", "photos-00001.parquet"]
    names = [row["image"] for row in rows(data, "photos-00000", "photos-00001")]
    assert names == sorted(path.name for path in (data / "photos").iterdir())
    assert tag("--threshold", "0", out="other") == 0
    answers = {row["image"]: row["labels"] for row in rows(data, "photos-00000", "photos-00001")}
    assert answers == {row["image"]: row["labels"] for row in rows(data, "000", "001", "002", out="other")}


def test_a_list_names_its_column_and_the_folder_of_its_pictures(tag, data):
    pyarrow = pytest.importorskip("pyarrow")
    names = sorted(path.name for path in (data / "photos").iterdir())
    (data / "lists").mkdir()
    parquet.write_table(pyarrow.table({"photo": names, "path": ["x"] * 6}), data / "lists" / "all.parquet")
    more = ("--column", "photo", "--images", str(data / "photos"))
    assert tag(*more, shards=["lists/all.parquet"]) == 0
    assert [(row["image"], row["error"]) for row in rows(data, "all")] == [(name, None) for name in names]


def test_what_is_done_is_not_done_again_and_new_shards_are_added(tag, data, monkeypatch):
    assert tag(shards=["000.tar"]) == 0
    before, tagged = (data / "out" / "000.parquet").stat(), noted(monkeypatch)
    assert tag() == 0
    assert tagged == ["001", "002"]
    assert (data / "out" / "000.parquet").stat() == before


@pytest.mark.parametrize(
    ("arguments", "labels", "said"),
    [((), ("dog", "cat"), "labels"), (("--threshold", "0.4"), LABELS, "threshold"), (("--top", "1"), LABELS, "top")],
)
def test_another_question_in_the_same_folder_is_refused_in_one_line(tag, data, capsys, arguments, labels, said):
    assert tag(shards=["001.tar"]) == 0
    capsys.readouterr()
    assert tag(*arguments, labels=labels) == 2
    line = f"001.parquet was made with other values of {said}: ask the same, or name another --out\n"
    out, err = capsys.readouterr()
    assert (out, err.endswith(line)) == ("", True)
    assert outputs(data) == [".claims", "001.parquet"]


def test_a_truncated_shard_is_named_and_once_it_is_mended_only_that_is_done(tag, data, capsys, monkeypatch):
    mend = spoil(data, "001.tar")
    assert tag() == 2
    err = capsys.readouterr().err
    assert f"left out: {data / '001.tar'} is " in err
    last = err.splitlines()[-1]
    assert last.startswith("error: 1 of 3 shards could not be tagged: 001; all others are done: mend them")
    assert outputs(data) == [".claims", "000.parquet", "002.parquet"]
    mend()
    tagged = noted(monkeypatch)
    assert tag() == 0
    assert tagged == ["001"]
    assert outputs(data) == ["000.parquet", "001.parquet", "002.parquet"]


def test_a_shard_that_somebody_else_could_read_is_not_called_damaged(tag, data, monkeypatch):
    mend, original = spoil(data, "001.tar"), tag_dataset.work_off

    def meanwhile(shards, outputs, tag):
        yield from original(shards, outputs, tag)
        mend()
        tag(next(shard for shard in shards if shard.name == "001"))

    monkeypatch.setattr(tag_dataset, "work_off", meanwhile)
    monkeypatch.setattr("tagging.shards.tar.TarShard.about", lambda self: {"file": self.name})
    assert tag() == 0


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tag, data, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[0][1]))
    try:
        code = tag()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert code == 2
    line = f"error: {data / 'out' / '000.parquet'}: cannot write, File too large"
    assert capsys.readouterr().err.splitlines()[-1] == line
    assert outputs(data) == [".claims"]
    assert tag() == 0
    assert outputs(data) == ["000.parquet", "001.parquet", "002.parquet"]


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [(signal.SIGTERM, 143, "ended by SIGTERM; the same command goes on"), (signal.SIGINT, 130, "interrupted")],
)
def test_signals_end_it_and_the_same_command_goes_on(tag, data, capsys, monkeypatch, kind, code, said):
    before, original = signal.signal(signal.SIGINT, signal.default_int_handler), Tagging.__call__

    def shot(self, shard):
        if shard.name == "001":
            os.kill(os.getpid(), kind)
        return original(self, shard)

    with monkeypatch.context() as during:
        during.setattr(Tagging, "__call__", shot)
        assert tag() == code
    signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert outputs(data) == [".claims", "000.parquet"]
    assert tag() == 0
    assert outputs(data) == ["000.parquet", "001.parquet", "002.parquet"]


def test_a_picture_that_cannot_be_read_is_a_row_that_says_why_and_is_counted(tag, data, capsys):
    with tarfile.open(data / "002.tar", "a") as archive:
        info = tarfile.TarInfo("broken.jpg")
        info.size = 10
        archive.addfile(info, io.BytesIO(b"no picture"))
    assert tag() == 0
    assert rows(data, "002")[-1]["error"].startswith("cannot read the image broken.jpg of ")
    assert "1 pictures could not be read: the column error says why" in capsys.readouterr().err


def test_ranks_begin_at_different_shards_and_the_first_one_speaks(tag, data, capsys, monkeypatch):
    tagged = noted(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert tag() == 0
    assert tagged == ["001", "002", "000"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert tag() == 0
    assert len(tagged) == 3
    assert capsys.readouterr().out.startswith(f"{data / 'out'}: 3 shards, 6 pictures; ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--workers", "0"), "--workers is 0: it has to be 1 or more"),
        (("--pictures", "-1"), "--pictures is -1: it has to be 1 or more"),
        (("--actors", "0"), "--actors is 0: it has to be 1 or more"),
        (("--batch", "0"), "--batch is 0: it has to be 1 or more"),
        (("--threshold", "2"), "the threshold 2 is none"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_what_cannot_be_asked_is_one_line_before_anything_is_written(tag, data, capsys, arguments, said):
    assert tag(*arguments) == 2
    out, err = capsys.readouterr()
    assert (out, said in err.splitlines()[-1]) == ("", True)
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("library", "said"),
    [("pyarrow", "outputs are Parquet files, which need pyarrow: "), ("ray", "--engine ray needs Ray: ")],
)
def test_what_has_to_be_installed_is_named(tag, capsys, monkeypatch, library, said):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else found(name) or True)
    assert tag("--engine", "ray") == 2
    assert capsys.readouterr().err == f"error: {said}pip install -r requirements-scale.txt\n"


def test_a_shard_that_is_not_there_is_named_before_anything_is_done(tag, data, capsys):
    assert tag(shards=["{000..003}.tar"]) == 2
    assert capsys.readouterr().err.startswith(f"error: no shard {data / '003.tar'}: shards are ")
    assert not (data / "out").exists()
