"""Shards from pictures to outputs: the same whoever does it, each once, and all in the end."""

import os
import time
from contextlib import contextmanager

import pytest

from tagging import Tagger
from tagging.shards import Job, ShardError, Tagging, find_shards, work, work_off

parquet = pytest.importorskip("pyarrow.parquet")

LABELS = ("dog", "kite", "sofa", "a red car")


@pytest.fixture
def shards(archive, contents):
    """Three archives of six pictures, one of which cannot be read."""
    members = list(contents.items())
    members[2] = (members[2][0], members[2][1][:100])
    return find_shards([str(archive(members, f"{k}.tar")) for k in range(3)], size=10)


def rows(job, name):
    return parquet.read_table(job.out / f"{name}.parquet").to_pylist()


def test_rows_are_what_the_tagger_says_of_each_picture(job, shards, contents, parts, tmp_path):
    outputs = job.outputs()
    assert Tagging(job, outputs, "cpu")(shards[0]) == (6, 1)
    tagger = Tagger(parts)
    for row, (name, content) in zip(rows(job, "0"), contents.items(), strict=True):
        assert row["image"] == name
        if name == "002.png":
            assert row["error"].startswith(f"cannot read the image 002.png of {tmp_path / '0.tar'}: ")
            continue
        (tmp_path / name).write_bytes(content)
        expected = tagger.tag(tmp_path / name, LABELS, top_k=2)
        assert (row["error"], tuple(row["labels"])) == (None, expected.labels)
        assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)


def test_a_folder_a_list_and_an_archive_of_the_same_pictures_give_the_same(job, contents, archive, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "photos").mkdir()
    for name, content in contents.items():
        (tmp_path / "photos" / name).write_bytes(content)
    columns = {"key": list(contents), "jpg": list(contents.values())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "bytes.parquet")
    parquet.write_table(pyarrow.table({"path": [f"photos/{name}" for name in contents]}), tmp_path / "paths.parquet")
    places = [archive(contents.items()), *(tmp_path / name for name in ("photos", "bytes.parquet", "paths.parquet"))]
    tag = Tagging(job, job.outputs(), "cpu")
    for shard in find_shards(list(map(str, places)), size=10):
        tag(shard)
    answers = [[(row["labels"], row["probabilities"]) for row in rows(job, name)]
               for name in ("000", "photos", "bytes", "paths")]  # fmt: skip
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert len(answers[0]) == len(contents)


def test_outputs_do_not_depend_on_the_order_of_the_work(job, shards, tmp_path):
    other = job._replace(out=tmp_path / "other")
    for one, order in ((job, shards), (other, shards[::-1])):
        outputs = one.outputs()
        assert len(list(work_off(order, outputs, Tagging(one, outputs, "cpu")))) == 3
    for name in "012":
        assert (job.out / f"{name}.parquet").read_bytes() == (other.out / f"{name}.parquet").read_bytes()


def test_what_is_counted_is_every_picture(job, shards):
    seen = []
    Tagging(job, job.outputs(), "cpu", seen.append)(shards[0])
    assert seen == [4, 2]


def test_a_damaged_shard_is_told_and_all_others_are_done(job, shards, tmp_path):
    path = tmp_path / "1.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    outputs = job.outputs()
    settled = {one.shard.name: one for one in work_off(shards, outputs, Tagging(job, outputs, "cpu"))}
    assert [settled[name].tally for name in "012"] == [(6, 1), None, (6, 1)]
    assert str(settled["1"].error).startswith(f"{path} is ")
    assert sorted(path.name for path in job.out.glob("*.parquet")) == ["0.parquet", "2.parquet"]
    path.write_bytes(whole)
    tagged = []
    again = work_off(shards, outputs, lambda shard: tagged.append(shard.name) or Tagging(job, outputs, "cpu")(shard))
    assert [one.tally for one in again] == [(6, 1)] * 3
    assert tagged == ["1"]


def test_no_model_is_made_where_all_is_done(job, shards, monkeypatch):
    outputs = job.outputs()
    list(work_off(shards, outputs, Tagging(job, outputs, "cpu")))
    monkeypatch.setattr(Job, "predictor", None)
    assert [one.tally for one in work_off(shards, outputs, Tagging(job, outputs, "cpu"))] == [(6, 1)] * 3


def test_what_others_are_at_work_on_is_waited_for_and_taken_over_if_they_fail(job, shards, monkeypatch):
    outputs, tag = job.outputs(), Tagging(job, job.outputs(), "cpu")
    taken, tagged, looks = {"0", "1"}, [], []

    @contextmanager
    def claimed(name):
        yield name not in taken

    def others(seconds):
        """The other process has finished one and died at the next."""
        looks.append(seconds)
        taken.clear()
        tag(shards[0])

    monkeypatch.setattr(outputs.claims, "claimed", claimed)
    monkeypatch.setattr(time, "sleep", others)
    settled = list(work_off(shards, outputs, lambda shard: tagged.append(shard.name) or tag(shard)))
    assert [one.shard.name for one in settled] == ["2", "0", "1"]
    assert tagged == ["2", "1"]
    assert looks == [work.POLL]


def test_what_was_finished_before_it_could_be_claimed_is_not_done_again(job, shards, monkeypatch):
    outputs = job.outputs()
    tag = Tagging(job, outputs, "cpu")

    @contextmanager
    def late(name):
        assert name == "0"
        tag(shards[0])  # by somebody else
        yield True

    monkeypatch.setattr(outputs.claims, "claimed", late)
    settled = work.settle(shards[0], outputs, lambda shard: pytest.fail(f"{shard.name} was done again"))
    assert settled.tally == (6, 1)


def test_a_shard_that_is_gone_is_told_as_damaged(job, shards, tmp_path):
    os.remove(tmp_path / "0.tar")
    outputs = job.outputs()
    settled = work.settle(shards[0], outputs, Tagging(job, outputs, "cpu"))
    assert isinstance(settled.error, ShardError)
