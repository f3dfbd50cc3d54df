"""A Parquet list of pictures, or with their bytes as img2dataset and Hugging Face write them, cut into shards."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets.records import DataError
from tagging.pictures import Encoded
from tagging.shards.folder import cut
from tagging.shards.shard import Named, ShardError

__all__ = ["COLUMNS", "RowShard", "shards_of_rows"]

COLUMNS = ("jpg", "jpeg", "png", "webp", "image", "path", "file_name", "url")  # the first that there is
NAMES = ("key", "__key__", "path", "file_name")  # of pictures whose bytes are there
AT_ONCE = 64  # rows that are held, with their bytes


class RowShard(NamedTuple):
    """Rows of a file, in its order: paths of pictures, or their bytes.

    A picture is called by its path as it stands in the file; where there are bytes, by its key, or else by the number
    of its row, counted from 0.
    """

    name: str
    path: Path
    first: int
    rows: int
    column: str
    images: Path  # folder that paths are relative to

    def about(self) -> dict[str, Any]:
        """Its file, the size of that, and which rows of it."""
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise ShardError(f"{self.path}: cannot read, {error.strerror}") from error
        return {"file": self.path.name, "bytes": size, "first": self.first, "rows": self.rows, "column": self.column}

    def pictures(self) -> Iterator[Named]:
        """The pictures, whose bytes are read as they are taken."""
        number = self.first
        for cells, names in self._cells():
            for cell, name in zip(cells, names, strict=True):
                yield self._named(cell, name, number)
                number += 1

    def _cells(self) -> Iterator[tuple[list[Any], list[Any]]]:
        """Columns of pictures and names, some rows at a time; only row groups that hold some are read."""
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                groups, before = _groups(file.metadata, self.first, self.rows)
                name = next((one for one in NAMES if one in file.schema_arrow.names), None)
                columns = [self.column, *([] if name in (None, self.column) else [name])]
                skip, left = self.first - before, self.rows
                for batch in file.iter_batches(AT_ONCE, row_groups=groups, columns=columns):
                    some = batch.slice(skip, left)
                    skip, left = max(skip - batch.num_rows, 0), left - some.num_rows
                    cells = some.column(self.column).to_pylist()
                    yield cells, cells if name is None else some.column(name).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            why = " ".join(str(error).split())
            raise ShardError(f"{self.path} is no Parquet file, or damaged: {why}") from error

    def _named(self, cell: Any, name: Any, number: int) -> Named:
        where = f"row {number:,} of {self.path}"
        if isinstance(cell, dict):  # as Hugging Face writes it
            cell, name = cell.get("bytes") or cell.get("path"), cell.get("path") or name
        if isinstance(cell, bytes):
            called = str(number) if name is None or isinstance(name, bytes | dict) else str(name)
            return called, Encoded(where, cell)
        if not isinstance(cell, str) or not cell:
            called = name if isinstance(name, str) else str(number)
            return called, DataError(f"{where} names no picture")
        return cell, os.path.join(self.images, cell.removeprefix("file://"))


def shards_of_rows(path: Path, size: int, *, column: str | None, images: Path | None) -> list[RowShard]:
    """Shards of at most `size` rows each; of a damaged file one, which says so when its pictures are read.

    Args:
        path: of the Parquet file.
        size: rows of a shard.
        column: that holds paths or bytes; None: the first of `COLUMNS` that there is.
        images: folder that paths are relative to; None: that of the file.

    Raises:
        ShardError: if the file has no such column, or no rows.
    """
    import pyarrow.parquet

    folder = path.parent if images is None else images
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names, count = file.schema_arrow.names, file.metadata.num_rows
    except (pyarrow.ArrowException, OSError):
        return [RowShard(path.stem, path, 0, 0, column or "", folder)]
    chosen = next((one for one in COLUMNS if one in names), None) if column is None else column
    if chosen is None or chosen not in names:
        raise ShardError(f"{path} has no column of pictures: name one of {', '.join(names)} with --column")
    if not count:
        raise ShardError(f"{path} has no rows")
    return [
        RowShard(name, path, first, min(size, count - first), chosen, folder)
        for name, first in cut(path.stem, count, size)
    ]


def _groups(metadata: Any, first: int, count: int) -> tuple[list[int], int]:
    """Row groups that hold rows from `first` on, and the number of rows before them."""
    chosen, before, start = list[int](), 0, 0
    for number in range(metadata.num_row_groups):
        end = start + metadata.row_group(number).num_rows
        if end > first and start < first + count:
            before = before if chosen else start
            chosen.append(number)
        start = end
    return chosen, before
