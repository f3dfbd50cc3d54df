"""Shards named on a command line: archives, Parquet lists, folders, patterns, ranges in braces."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datasets.records import DataError, MissingFileError
from tagging.shards.folder import shards_of_folder
from tagging.shards.parquet import shards_of_rows
from tagging.shards.shard import Shard
from tagging.shards.tar import TAR_SUFFIXES, TarShard

__all__ = ["expand", "find_shards"]

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST = 1_000_000  # names of a range; more are a slip of the finger
PARQUET = ".parquet"


def find_shards(
    arguments: Sequence[str], *, size: int, column: str | None = None, images: Path | None = None
) -> list[Shard]:
    """The shards, in the order of the arguments; those of a pattern in ASCII order.

    Args:
        arguments: .tar, .tar.gz, .tgz or .parquet files, folders of pictures, patterns such as "data/*.tar", and ranges
            such as "data/{000..019}.tar".
        size: pictures of a shard that is cut from a folder or a Parquet list.
        column: of Parquet lists, see `shards_of_rows`.
        images: folder that the paths of Parquet lists are relative to, see `shards_of_rows`.

    Raises:
        MissingFileError: naming what is not there, before anything is tagged.
        DataError: naming a file that is no shard, or two that would have the same output.
        ShardError: if a Parquet list has no pictures, see `shards_of_rows`.
    """
    found: dict[str, Shard] = {}
    origins: dict[str, str] = {}
    for path in dict.fromkeys(path for argument in arguments for path in _paths(argument)):
        for shard in _shards(path, size, column, images):
            if (other := origins.setdefault(shard.name, path)) != path:
                raise DataError(f"{other} and {path} would both be written to {shard.name}.parquet: tag one elsewhere")
            found[shard.name] = shard
    return list(found.values())


def expand(pattern: str) -> Iterator[str]:
    """The texts that ranges in braces stand for: "{08..10}" gives 08, 09 and 10.

    Raises:
        DataError: if a range ends before it begins, or has more than a million numbers.
    """
    match = RANGE.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = map(int, match.groups())
    if not 0 <= last - first < MOST:
        raise DataError(f"{pattern!r}: {match[0]} is no range of at most {MOST:,} numbers")
    width = len(match[1]) if match[1].startswith("0") else 0
    for number in range(first, last + 1):
        yield from expand(f"{pattern[: match.start()]}{number:0{width}}{pattern[match.end() :]}")


def _paths(argument: str) -> Iterator[str]:
    for text in [argument] if os.path.exists(argument) else expand(argument):
        if os.path.exists(text):
            yield text
        elif glob.has_magic(text) and (matches := sorted(glob.glob(text, recursive=True))):
            yield from matches
        else:
            raise MissingFileError(f"no shard {text}: shards are .tar and .parquet files, or folders of pictures")


def _shards(path: str, size: int, column: str | None, images: Path | None) -> Sequence[Shard]:
    file = Path(path)
    if os.path.isdir(path):
        try:
            return shards_of_folder(path, size)
        except MissingFileError as error:
            raise MissingFileError(
                f'no pictures in {path}: archives in a folder are named by a pattern, such as "{file / "*.tar"}"'
            ) from error
    if os.path.isfile(path) and file.suffix.lower() == PARQUET:
        return shards_of_rows(file, size, column=column, images=images)
    if os.path.isfile(path) and (suffix := next((s for s in TAR_SUFFIXES if path.lower().endswith(s)), None)):
        return [TarShard(file.name[: -len(suffix)], file)]
    raise DataError(f"{path} is no shard: name {', '.join(TAR_SUFFIXES)} and {PARQUET} files, or folders of pictures")
