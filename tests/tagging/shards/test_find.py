"""Shards named on a command line."""

import pytest

from datasets.records import DataError, MissingFileError
from tagging.shards import find_shards
from tagging.shards.find import expand


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The working directory, with archives 08, 09 and 10, and a folder with a picture."""
    for name in ("data/08.tar", "data/09.tar", "data/10.tar.gz", "data/notes.txt", "photos/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments):
    return [shard.name for shard in find_shards(arguments, size=10)]


def test_archives_are_named_by_path_pattern_and_range(data):
    assert data.is_dir()
    assert names("data/09.tar", "data/08.tar") == ["09", "08"]
    assert names("data/*.tar*") == ["08", "09", "10"]
    assert names("data/{08..09}.tar") == ["08", "09"]
    assert names("data/{08..09}.tar", "data/*.tar", "photos") == ["08", "09", "photos"]


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{000..002}", ["000", "001", "002"]),
        ("a{1..2}b{3..4}", ["a1b3", "a1b4", "a2b3", "a2b4"]),
        ("{5..5}", ["5"]),
        ("a{b}c", ["a{b}c"]),
    ],
)
def test_ranges_are_those_of_a_shell(pattern, texts):
    assert list(expand(pattern)) == texts


@pytest.mark.parametrize("pattern", ["{9..8}", "{0..99999999}"])
def test_ranges_that_are_none_are_refused(pattern):
    with pytest.raises(DataError, match="is no range of at most 1,000,000 numbers"):
        list(expand(pattern))


def test_a_file_that_is_called_like_a_range_is_that_file(data):
    (data / "{1..2}.tar").touch()
    assert names("{1..2}.tar") == ["{1..2}"]


@pytest.mark.parametrize("argument", ["data/07.tar", "data/{07..09}.tar", "data/*.zip"])
def test_what_is_not_there_is_named_before_anything_is_done(data, argument):
    assert data.is_dir()
    with pytest.raises(MissingFileError, match=r"^no shard data/(07\.tar|\*\.zip): shards are"):
        names(argument)


def test_a_file_of_another_kind_is_no_shard(data):
    assert data.is_dir()
    with pytest.raises(DataError, match=r"^data/notes\.txt is no shard: name \.tar, "):
        names("data/notes.txt")


def test_a_folder_of_archives_is_refused_with_the_way_to_name_them(data):
    assert data.is_dir()
    with pytest.raises(
        MissingFileError, match=r'^no pictures in data: .* are named by a pattern, such as "data/\*\.tar"$'
    ):
        names("data")


def test_two_shards_of_one_output_are_refused(data):
    (data / "more").mkdir()
    (data / "more" / "08.tar").touch()
    with pytest.raises(DataError, match=r"^data/08\.tar and more/08\.tar would both be written to 08\.parquet"):
        names("data/08.tar", "more/08.tar")
