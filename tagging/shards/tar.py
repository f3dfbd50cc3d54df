"""Shards as WebDataset writes them: tar archives, plain or compressed."""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets.records import DataError
from tagging.pictures import Encoded
from tagging.shards.shard import Named, ShardError, names_a_picture

__all__ = ["TAR_SUFFIXES", "TarShard"]

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
MOST_BYTES = 2**30  # of a picture; a compressed archive may claim any number


class TarShard(NamedTuple):
    """The pictures of an archive, in its order; members that are none, such as captions, are passed over.

    A picture is called by the whole name of its member.
    """

    name: str
    path: Path

    def about(self) -> dict[str, Any]:
        """Its file and the size of that."""
        try:
            return {"file": self.path.name, "bytes": self.path.stat().st_size}
        except OSError as error:
            raise ShardError(f"{self.path}: cannot read, {error.strerror}") from error

    def pictures(self) -> Iterator[Named]:
        """The pictures; all heads are read before the first, so that what is cut short costs no computing."""
        try:
            with tarfile.open(self.path) as archive:
                for member in _members(archive, self.path):
                    yield member.name, _content(archive, member, self.path)
        except ShardError:
            raise
        except Exception as error:  # tarfile and the decompressors raise a dozen types
            why = " ".join(str(error).split()) or type(error).__name__
            raise ShardError(f"{self.path} is no tar archive, or damaged: {why}") from error


def _members(archive: tarfile.TarFile, path: Path) -> list[tarfile.TarInfo]:
    """Those that are pictures."""
    members = list(archive)
    _require_end(archive, path, len(members))
    found = [one for one in members if names_a_picture(one.name) and not one.isdir()]
    pictures = {one.name: one for one in found}
    if not pictures:
        raise ShardError(f"{path} holds no pictures")
    if strange := next((one.name for one in found if not one.isfile()), None):
        raise ShardError(f"{path}: {strange} is a link or device: write files into it")
    if twice := next((one.name for one in found if pictures[one.name] is not one), None):
        raise ShardError(f"{path} holds {twice} twice: write it again with different names")
    return list(pictures.values())


def _require_end(archive: tarfile.TarFile, path: Path, members: int) -> None:
    # tarfile takes a broken head, and a cut between two members, for the end; the true one is a block of zeros.
    file = archive.fileobj
    assert file is not None  # as it was opened
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ShardError(f"{path} is cut short or damaged behind {members:,} members: write it again")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Encoded | DataError:
    if member.size > MOST_BYTES or member.issparse():
        return DataError(f"{member.name} of {path} has {member.size:,} bytes, of which many may be none: no picture")
    file = archive.extractfile(member)
    assert file is not None  # as it is a regular file
    content = file.read()
    if len(content) != member.size:
        raise ShardError(f"{path} is cut short within {member.name}: write it again")
    return Encoded(f"{member.name} of {path}", content)
