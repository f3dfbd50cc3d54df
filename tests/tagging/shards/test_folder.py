"""Folders cut into shards."""

import pickle

import pytest

from datasets.records import MissingFileError
from tagging.shards.folder import cut, shards_of_folder


@pytest.fixture
def folder(tmp_path):
    """Five files below a folder, made in another order than they are named in."""
    place = tmp_path / "photos"
    (place / "b").mkdir(parents=True)
    for name in ("c.png", "b/2.jpg", "a.png", "b/1.png", "d.gif", "notes.txt"):
        (place / name).touch()
    return place


def test_pictures_come_in_the_order_of_their_paths_and_are_called_by_them(folder):
    shards = shards_of_folder(str(folder), 2)
    assert [shard.name for shard in shards] == ["photos-00000", "photos-00001", "photos-00002"]
    named = [list(shard.pictures()) for shard in shards]
    names = [["a.png", "b/1.png"], ["b/2.jpg", "c.png"], ["d.gif"]]
    assert named == [[(name, str(folder / name)) for name in some] for some in names]


def test_a_folder_of_few_pictures_is_one_shard_of_its_name(folder):
    (shard,) = shards_of_folder(str(folder), 5)
    assert shard.name == "photos"
    assert pickle.loads(pickle.dumps(shard)) == shard


def test_a_shard_is_told_by_the_names_of_its_pictures_alone(folder, tmp_path):
    before = [shard.about() for shard in shards_of_folder(str(folder), 2)]
    (folder / "aa.png").touch()
    after = [shard.about() for shard in shards_of_folder(str(folder), 2)]
    assert before[0]["names"] != after[0]["names"]
    assert before[0]["pictures"] == 2
    (folder / "aa.png").unlink()
    folder.rename(tmp_path / "elsewhere")
    assert [shard.about() for shard in shards_of_folder(str(tmp_path / "elsewhere"), 2)] == before


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match="no pictures in"):
        shards_of_folder(str(tmp_path), 2)


@pytest.mark.parametrize(("count", "firsts"), [(1, [0]), (10, [0]), (11, [0, 10]), (30, [0, 10, 20])])
def test_shards_are_full_but_for_the_last(count, firsts):
    assert [first for _, first in cut("x", count, 10)] == firsts
