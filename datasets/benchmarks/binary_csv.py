"""CSV tables of the remote-sensing benchmarks: a column of image names, then one of 0 and 1 for each label."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from datasets.formats.text import read_text
from datasets.records import DataError, Entry, first_few

__all__ = ["Table", "columns_by_name", "entries", "read"]


class Table(NamedTuple):
    """Cells without blanks around them; `rows` are the lines below the header, numbered as in the file."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read(path: Path) -> Table:
    """The cells of a file.

    Raises:
        DataError: naming the line, if it is not UTF-8, its quotes are broken, or it has other than the header's
            number of cells; or if there is nothing below the header.
    """
    reader = csv.reader(io.StringIO(read_text(path)), strict=True)
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append((reader.line_num, tuple(map(str.strip, row))))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: broken CSV: {error}") from error
    if len(rows) < 2:
        raise DataError(f"{path}: there are no images below the header")
    (_, header), *images = rows
    for line, cells in images:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}")
    return Table(path, header, tuple(images))


def columns_by_name(table: Table, names: Mapping[str, str]) -> dict[str, int]:
    """The column of each label.

    Args:
        table: with the names of labels in its header, after that of the image.
        names: name in the header -> label.

    Raises:
        DataError: if a name is missing or occurs twice.
    """
    columns = table.header[1:]
    if repeated := {name for name in columns if name in names and columns.count(name) > 1}:
        raise DataError(f"{table.path}, line 1: two columns are called {first_few(repeated)}")
    if lacking := set(names) - set(columns):
        unknown = set(columns) - set(names)
        besides = f"; of no label: {first_few(unknown)}" if unknown else ""
        raise DataError(f"{table.path}, line 1: the header has no column {first_few(lacking)}{besides}")
    return {label: 1 + columns.index(name) for name, label in names.items()}


def entries(table: Table, columns: Mapping[str, int], path_of: Callable[[str], str]) -> Iterable[Entry]:
    """The images with their labels, in the order of `columns`.

    Args:
        table: any.
        columns: label -> column.
        path_of: name of an image -> its path.

    Raises:
        DataError: naming the line, if a value is other than 0 or 1 or there is no name of an image.
    """
    for line, cells in table.rows:
        where = f"{table.path}, line {line}"
        if not cells[0]:
            raise DataError(f"{where}: the first column, the name of the image, is empty")
        labels = []
        for label, column in columns.items():
            value = _flag(cells[column])
            if value is None:
                raise DataError(f"{where}, label {label!r}: {cells[column][:80]!r} is not 0 or 1")
            if value:
                labels.append(label)
        yield Entry(where, path_of(cells[0]), labels)


@lru_cache(maxsize=1024)
def _flag(cell: str) -> bool | None:
    """What a cell such as "1" or "1.0" says, None if it is neither 0 nor 1."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return bool(value) if value in (0, 1) else None
