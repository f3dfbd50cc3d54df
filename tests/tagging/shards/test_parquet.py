"""Parquet lists cut into shards: paths, bytes, and what is wrong with them."""

from pathlib import Path

import pytest

from datasets.records import DataError
from tagging.pictures import Encoded
from tagging.shards import ShardError
from tagging.shards.parquet import shards_of_rows

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def listed(tmp_path):
    """Writes columns as list.parquet, three rows to a row group."""

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet", row_group_size=3)
        return tmp_path / "list.parquet"

    return write


def shards(path, size=100, column=None, images=None):
    return shards_of_rows(path, size, column=column, images=images)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 100])
def test_each_row_is_in_one_shard_in_its_place(listed, size):
    path = listed(path=[f"{k}.png" for k in range(8)], other=list(range(8)))
    made = shards(path, size)
    assert [name for shard in made for name, _ in shard.pictures()] == [f"{k}.png" for k in range(8)]
    assert all(len(list(shard.pictures())) == size for shard in made[:-1])
    assert [shard.name for shard in made] == (["list"] if size >= 8 else [f"list-{k:05}" for k in range(len(made))])


def test_only_row_groups_that_are_needed_are_read(listed, monkeypatch):
    path, groups = listed(path=[f"{k}.png" for k in range(12)]), []
    original = parquet.ParquetFile.iter_batches

    def noted(self, *arguments, row_groups, **others):
        groups.append(row_groups)
        return original(self, *arguments, row_groups=row_groups, **others)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", noted)
    for shard in shards(path, 5):
        assert list(shard.pictures())
    assert groups == [[0, 1], [1, 2, 3], [3]]


def test_paths_are_relative_to_the_list_or_to_a_folder_that_is_named(listed, tmp_path):
    path = listed(path=["a/b.png", "/c/d.png", "file:///e.png"])
    assert [place for _, place in shards(path)[0].pictures()] == [str(tmp_path / "a/b.png"), "/c/d.png", "/e.png"]
    (elsewhere,) = shards(path, images=Path("/images"))
    assert next(elsewhere.pictures()) == ("a/b.png", "/images/a/b.png")


def test_bytes_are_pictures_called_by_their_key_or_their_row(listed, contents):
    content = list(contents.values())[:2]
    (shard,) = shards(listed(jpg=content, key=["x", "y"], url=["http://a", "http://b"]))
    assert [name for name, _ in shard.pictures()] == ["x", "y"]
    assert [picture.content for _, picture in shard.pictures()] == content
    made = shards(listed(jpg=content), 1)
    pairs = [pair for shard in made for pair in shard.pictures()]
    where = [f"row {k} of {made[0].path}" for k in range(2)]
    assert pairs == [(str(k), Encoded(where[k], content[k])) for k in range(2)]


def test_pictures_of_hugging_face_are_read(listed, contents):
    first, *_ = contents.values()
    cells = [{"bytes": first, "path": "a.png"}, {"bytes": None, "path": "b.png"}, {"bytes": first, "path": None}, None]
    (shard,) = shards(listed(image=cells, label=[0, 1, 2, 3]))
    (a, one), (b, two), (c, three), (d, four) = shard.pictures()
    assert (a, b, c, d) == ("a.png", "b.png", "2", "3")
    assert one.content == three.content == first
    assert two == str(shard.path.parent / "b.png")
    assert isinstance(four, DataError)


def test_rows_without_a_picture_are_rows_that_say_so(listed):
    (shard,) = shards(listed(path=["a.png", None, "", "b.png"], key=["1", "2", "3", "4"]))
    found = list(shard.pictures())
    assert [name for name, _ in found] == ["a.png", "2", "3", "b.png"]
    assert str(found[1][1]) == f"row 1 of {shard.path} names no picture"


def test_the_column_can_be_named(listed):
    path = listed(path=["a.png"], thumbnail=["b.png"])
    assert [name for name, _ in shards(path, column="thumbnail")[0].pictures()] == ["b.png"]
    with pytest.raises(ShardError, match="has no column of pictures: name one of path, thumbnail with --column"):
        shards(path, column="picture")
    with pytest.raises(ShardError, match="has no column of pictures"):
        shards(listed(caption=["a dog"]))


def test_a_list_without_rows_is_refused(listed):
    with pytest.raises(ShardError, match=r"list\.parquet has no rows"):
        shards(listed(path=pyarrow.array([], pyarrow.string())))


@pytest.mark.parametrize("part", ["head", "tail", "all"])
def test_a_damaged_list_is_a_shard_that_says_so_in_one_line_when_it_is_read(listed, part):
    path = listed(path=[f"{k}.png" * 50 for k in range(100)])
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes({"head": bytes(half) + whole[half:], "tail": whole[:half], "all": b""}[part])
    (shard,) = shards(path)
    assert (shard.name, shard.about()["file"]) == ("list", "list.parquet")
    with pytest.raises(ShardError, match=r"list\.parquet is no Parquet file, or damaged: ") as refused:
        list(shard.pictures())
    assert "\n" not in str(refused.value)


def test_rows_are_told_by_their_file_and_where_they_stand(listed):
    path = listed(path=["a.png", "b.png", "c.png"])
    first, second = (shard.about() for shard in shards(path, 2))
    assert first == {"file": "list.parquet", "bytes": path.stat().st_size, "first": 0, "rows": 2, "column": "path"}
    assert (second["first"], second["rows"]) == (2, 1)
    (shard,) = shards(path)
    path.unlink()
    with pytest.raises(ShardError, match="cannot read, No such file"):
        shard.about()
