"""Shards on a cluster of Ray: the same as a rank gives."""

import importlib.util
import pickle

import numpy as np
import pytest

from tagging.shards import Tagging, find_shards
from tagging.shards.on_ray import RayError, Worker, settled_on_ray

pytest.importorskip("pyarrow")
WITH_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs requirements-scale.txt")


@pytest.fixture
def shards(archive, contents):
    """Three archives of six pictures; the second is cut short."""
    paths = [archive(contents.items(), f"{k}.tar") for k in range(3)]
    paths[1].write_bytes(paths[1].read_bytes()[:3000])
    return find_shards(list(map(str, paths)), size=10)


def answered(job, device, *shards):
    batch = {"number": np.arange(len(shards)), "shard": [pickle.dumps(shard) for shard in shards]}
    return Worker(job, device)(batch)


def test_an_actor_does_what_a_rank_does_and_tells_what_is_damaged(job, shards, tmp_path):
    answer = answered(job, "cpu", *shards)
    assert answer["number"].tolist() == [0, 1, 2]
    assert answer["refusal"].tolist() == ["", "", ""]
    assert [bool(text) for text in answer["damage"]] == [False, True, False]
    rank = job._replace(out=tmp_path / "rank")
    Tagging(rank, rank.outputs(), "cpu")(shards[2])
    assert (job.out / "2.parquet").read_bytes() == (rank.out / "2.parquet").read_bytes()


def test_what_keeps_an_actor_from_going_on_is_told_as_such(job, shards):
    answer = answered(job, "tpu", shards[0])
    assert answer["refusal"].tolist() == ["unknown device 'tpu': auto, cpu, cuda, cuda:<index> or mps"]
    assert answer["damage"].tolist() == [""]


def test_what_somebody_else_is_at_work_on_is_not_waited_for(job, shards, monkeypatch):
    monkeypatch.setattr("tagging.shards.on_ray.settle", lambda *_: None)
    assert answered(job, "cpu", shards[0])["damage"].tolist() == ["0: another process is at work on it"]


@pytest.mark.slow
@WITH_RAY
@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_ray_gives_what_a_rank_gives_and_tells_what_is_damaged_or_refused(job, shards, tmp_path):
    outputs, rank = job.outputs(), job._replace(out=tmp_path / "rank")
    settled = {one.shard.name: one for one in settled_on_ray(shards, job, outputs, device="cpu", workers=2)}
    assert [settled[name].tally for name in "012"] == [(6, 0), None, (6, 0)]
    assert str(settled["1"].error).startswith(f"{tmp_path / '1.tar'} is ")
    tag = Tagging(rank, rank.outputs(), "cpu")
    for shard in (shards[0], shards[2]):
        tag(shard)
        assert (job.out / f"{shard.name}.parquet").read_bytes() == (rank.out / f"{shard.name}.parquet").read_bytes()
    with pytest.raises(RayError, match=r"^unknown device 'tpu': auto, cpu"):
        list(settled_on_ray(shards[1:2], job, outputs, device="tpu", workers=1))
