"""Archives as shards: what their pictures are, and that damage is found before any is taken."""

import io
import random
import tarfile

import pytest

from datasets.records import DataError
from tagging.shards import ShardError
from tagging.shards import tar as module
from tagging.shards.tar import TarShard


def taken(path):
    return [(name, picture.content) for name, picture in TarShard("000", path).pictures()]


@pytest.mark.parametrize(("name", "mode"), [("000.tar", "w"), ("000.tar.gz", "w:gz"), ("000.tgz", "w:gz")])
def test_pictures_come_in_the_order_of_the_archive_by_their_names(archive, contents, name, mode):
    members = list(reversed(contents.items()))
    assert taken(archive(members, name, mode)) == members


def test_what_is_no_picture_is_passed_over(archive, contents):
    first, second = list(contents.items())[:2]
    others = [
        ("a", None),
        ("a/000.json", b"{}"),
        ("a/000.txt", b"a dog"),
        ("a/._000.png", b"of a Mac"),
        (".x.png", b""),
    ]
    upper = ("a/B.PNG", second[1])
    assert taken(archive([first, *others, upper])) == [first, upper]


def test_messages_name_member_and_archive(archive, contents):
    path = archive(contents.items())
    assert next(TarShard("000", path).pictures())[1].name == f"000.png of {path}"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(("name", "mode"), [("000.tar", "w"), ("000.tgz", "w:gz")])
def test_an_archive_that_is_cut_short_is_refused_before_its_first_picture(archive, contents, share, name, mode):
    path = archive(contents.items(), name, mode)
    whole = path.read_bytes()
    length = len(whole) if mode == "w:gz" else sum(512 + -len(c) // 512 * -512 for c in contents.values()) + 512
    path.write_bytes(whole[: int(share * length)])
    with pytest.raises(ShardError, match=f"^{path} "):
        next(TarShard("000", path).pictures())


def offset_of_fourth(path):
    """Where the head of an archive's fourth member begins."""
    with tarfile.open(path) as made:
        return made.getmembers()[3].offset


def test_an_archive_that_is_cut_between_two_members_is_refused(archive, contents):
    path = archive(contents.items())
    path.write_bytes(path.read_bytes()[: offset_of_fourth(path)])
    with pytest.raises(ShardError, match=f"^{path} is cut short or damaged behind 3 members: write it again$"):
        next(TarShard("000", path).pictures())


def test_a_broken_head_in_the_middle_is_no_end(archive, contents):
    path = archive(contents.items())
    whole = bytearray(path.read_bytes())
    whole[offset_of_fourth(path) + 150] ^= 255  # of its checksum
    path.write_bytes(whole)
    with pytest.raises(ShardError, match="is cut short or damaged behind 3 members"):
        next(TarShard("000", path).pictures())


def test_changed_archives_give_pictures_or_one_line(archive, contents):
    path, drawn = archive(contents.items()), random.Random(1)
    whole, said = path.read_bytes(), []
    heads = [512 * k + drawn.randrange(512) for k in range(len(whole) // 512)]
    for _ in range(60):
        changed = bytearray(whole)
        for place in drawn.sample(heads, 3):
            changed[place] = drawn.randrange(256)
        path.write_bytes(changed)
        try:
            assert all(isinstance(name, str) for name, _ in TarShard("000", path).pictures())
        except ShardError as error:
            said.append(str(error))
    assert said
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], "holds no pictures"),
        ([("a.txt", b"a dog")], "holds no pictures"),
        ([("a.png", b"1"), ("b.png", b"2"), ("a.png", b"3")], "holds a.png twice"),
    ],
)
def test_an_archive_of_which_rows_could_not_be_told_apart_is_refused(archive, members, said):
    with pytest.raises(ShardError, match=said):
        next(TarShard("000", archive(members)).pictures())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, contents, kind):
    path = tmp_path / "000.tar"
    with tarfile.open(path, "w") as made:
        info = tarfile.TarInfo("a.png")
        info.size = len(contents["000.png"])
        made.addfile(info, io.BytesIO(contents["000.png"]))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, "a.png"
        made.addfile(link)
    with pytest.raises(ShardError, match="b.png is a link or device"):
        next(TarShard("000", path).pictures())


def test_a_member_of_a_size_that_no_picture_has_is_not_read(archive, contents, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", len(contents["000.png"]))
    small, large, *_ = (picture for _, picture in TarShard("000", archive(contents.items())).pictures())
    assert small.content == contents["000.png"]
    assert isinstance(large, DataError)
    assert "001.png of " in str(large)


def test_a_file_that_is_no_archive_or_gone_is_named(tmp_path):
    path = tmp_path / "000.tar"
    path.write_bytes(b"no archive" * 200)
    with pytest.raises(ShardError, match=f"^{path} is no tar archive, or damaged: "):
        next(TarShard("000", path).pictures())
    with pytest.raises(ShardError, match="gone.tar: cannot read, No such file"):
        TarShard("gone", tmp_path / "gone.tar").about()


def test_an_archive_is_told_by_its_name_and_size(archive, contents):
    path = archive(contents.items())
    assert TarShard("000", path).about() == {"file": "000.tar", "bytes": path.stat().st_size}
