"""A folder of pictures, cut into shards of equal length."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tagging.inputs import Listed, find_pictures
from tagging.shards.shard import Named

__all__ = ["FolderShard", "cut", "shards_of_folder"]


class FolderShard(NamedTuple):
    """Some pictures of a folder, called by their paths below it."""

    name: str
    listed: tuple[Listed, ...]

    def about(self) -> dict[str, Any]:
        """How many pictures, and a digest of what they are called."""
        names = "\0".join(one.name for one in self.listed)
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        return {"pictures": len(self.listed), "names": digest}

    def pictures(self) -> Iterator[Named]:
        """Their paths."""
        for picture, name in self.listed:
            yield name, picture


def shards_of_folder(folder: str, size: int) -> list[FolderShard]:
    """Shards of at most `size` pictures each, in ASCII order of their paths, with all below the folder.

    Raises:
        MissingFileError: if there are none.
    """
    listed = find_pictures([folder])
    name = Path(folder).resolve().name
    return [FolderShard(one, tuple(listed[first : first + size])) for one, first in cut(name, len(listed), size)]


def cut(name: str, count: int, size: int) -> list[tuple[str, int]]:
    """Names and beginnings of the shards of `count` pictures; a single one keeps the name."""
    if count <= size:
        return [(name, 0)]
    return [(f"{name}-{number:05}", first) for number, first in enumerate(range(0, count, size))]
