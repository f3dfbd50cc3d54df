"""Tables, CSV or TSV, in one of three layouts.

    image,labels            image,dog,cat           image,label
    a.jpg,dog|cat           a.jpg,1,1               a.jpg,dog
    b.jpg,                  b.jpg,0,0               a.jpg,cat

UTF-8; columns are separated by comma, semicolon or tab. The image column is called image, file, filename, file_name,
path or img, the one of the labels labels, label, tags or classes. In the second layout every other column is a label,
but for one that numbers the rows, as pandas writes it. The third is that of a table whose cells are one label each and
some image of which stands in several rows: it has the labels of all of them. A first line such as sep=; (Excel) names
the separator.
"""

import csv
import io
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from datasets.formats.text import labels_in, read_text, separator_of
from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError, Entry, Records, collect, first_few

__all__ = ["read_table"]

IMAGE_COLUMNS = ("image", "file", "filename", "file_name", "path", "img")
LABEL_COLUMNS = ("labels", "label", "tags", "classes")
DELIMITERS = ("\t", ";", ",")
NAMED_DELIMITER = re.compile(r"\s*sep=(.)[^\S\n]*\n", re.IGNORECASE)
NUMBER_COLUMNS = ("", "unnamed: 0", "index")
FLAGS = {"-1": None, "-1.0": None, "1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
PYTHON_LIST = re.compile(r"""\[\s*(['"].*)?\]""", re.DOTALL)


class _Row(NamedTuple):
    """Cells without blanks around them; `line` is where the row starts, from 1."""

    line: int
    cells: tuple[str, ...]


def read_table(path: Path, *, separator: str = "auto", empty_is_unknown: bool = False) -> Records:
    r"""The records of a table, in its order.

    An empty cell of labels means that the image has none; columns that a table with a labels column has besides are
    not read, and a note names them.

    Args:
        path: the file.
        separator: between the labels of a cell; "auto": the first of | ; , that occurs in any; "": a cell is one
            label. The end of a line inside a quoted cell separates too.
        empty_is_unknown: in a table with a column per label, an empty cell says that nothing is known, as -1 does;
            otherwise that the label is absent.

    Returns:
        Records whose classes are the labels in ASCII order, or the columns in theirs.

    Raises:
        DataError: naming the line, if the table is in neither layout or contradicts itself.
        OSError: if the file cannot be read.
    """
    header, *rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: there are no images below the header")
    names = [name.lower() for name in header.cells]
    images = [k for k, name in enumerate(names) if name in IMAGE_COLUMNS]
    labels = [k for k, name in enumerate(names) if name in LABEL_COLUMNS]
    for row in rows:
        if not row.cells[images[0]]:
            raise DataError(f"{path}, line {row.line}: column {header.cells[images[0]]!r} is empty: there is no image")
    if labels and not (len(names) > 2 and _are_flags(rows, labels[0])):
        _single(path, header, images, "image")
        _single(path, header, labels, "labels")
        return _listed(path, rows, header, (images[0], labels[0]), separator)
    return _flagged(path, rows, header, images[0], empty_is_unknown=empty_is_unknown)


def _rows(path: Path) -> list[_Row]:
    """Header and rows, all of the same number of cells."""
    text = read_text(path)
    if match := NAMED_DELIMITER.match(text):
        text = "\n" * match[0].count("\n") + text[match.end() :]  # lines keep their numbers
    delimiter = match[1] if match else _delimiter(path, text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[_Row] = []
    line = 1
    try:
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                rows.append(_Row(line, tuple(map(str.strip, cells))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: broken quotes in the row that starts here: {error}") from error
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            raise DataError(
                f"{path}, line {row.line}: {len(row.cells)} cells where the header has {width}: quote a cell that "
                f"contains {delimiter!r}"
            )
    counts = Counter(name for name in rows[0].cells if name)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise DataError(f"{path}, line {rows[0].line}: two columns are called {repeated[0]!r}")
    return rows


def _delimiter(path: Path, text: str) -> str:
    """What separates columns: the delimiter by which the header has an image column, and most columns."""
    number, header = next(((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()), (0, ""))
    if not header:
        raise DataError(f"{path}: the file is empty")
    try:
        columns = {sign: next(csv.reader([header], delimiter=sign, skipinitialspace=True)) for sign in DELIMITERS}
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: no header of a table: {error}") from error
    names = {sign: [cell.strip() for cell in cells] for sign, cells in columns.items()}
    fitting = [sign for sign in DELIMITERS if any(name.lower() in IMAGE_COLUMNS for name in names[sign])]
    if fitting:
        return max(fitting, key=lambda sign: len(names[sign]))
    cells = max(names.values(), key=len)
    if any(cell.lower().endswith(IMAGE_SUFFIXES) for cell in cells):
        raise DataError(f"{path}, line {number}: no header: the first line has to name the columns, as image,labels")
    raise DataError(
        f"{path}, line {number}: no column for the image among {first_few(cells)}: call it {', '.join(IMAGE_COLUMNS)}"
    )


def _single(path: Path, header: _Row, columns: Sequence[int], what: str) -> None:
    if len(columns) > 1:
        names = " and ".join(repr(header.cells[k]) for k in columns)
        raise DataError(f"{path}, line {header.line}: {names} could each be the column of the {what}: keep one of them")


def _is_numbering(header: _Row, rows: Sequence[_Row]) -> bool:
    """Whether the first column has no name of its own and counts from 0 or 1 on."""
    cells = [row.cells[0] for row in rows]
    counts = ([str(k + first) for k in range(len(rows))] for first in (0, 1))
    return header.cells[0].lower() in NUMBER_COLUMNS and cells in counts


def _are_flags(rows: Sequence[_Row], column: int) -> bool:
    return all(row.cells[column].lower() in FLAGS for row in rows)


def _listed(path: Path, rows: Sequence[_Row], header: _Row, columns: tuple[int, int], separator: str) -> Records:
    """The first layout; `columns` are those of the image and of the labels."""
    image, labels = columns
    for row in rows:
        if PYTHON_LIST.fullmatch(row.cells[labels]):
            raise DataError(
                f"{path}, line {row.line}: {row.cells[labels][:80]!r} is a list in the notation of Python: write the "
                "labels as dog|cat"
            )
    sign, notes = separator_of([row.cells[labels] for row in rows], separator)
    named = cache(lambda cell: tuple(labels_in(cell, sign)))  # a million cells are of few kinds
    entries = [Entry(f"{path}, line {row.line}", row.cells[image], named(row.cells[labels])) for row in rows]
    if all(len(entry.labels) <= 1 for entry in entries):
        entries = _joined(entries)
        if len(entries) < len(rows):
            notes = (*notes, f"a row for each label: {len(rows):,} rows of {len(entries):,} images")
    unread = [name or f"number {k + 1}" for k, name in enumerate(header.cells) if k not in columns]
    if unread:
        notes = (*notes, f"columns that are not read: {len(unread):,} ({first_few(unread)})")
    return _collected(path, entries, None, notes)


def _joined(entries: Sequence[Entry]) -> list[Entry]:
    """One entry for each image, with the labels of all its rows."""
    by_image: dict[str, Entry] = {}
    for entry in entries:
        name = posixpath.normpath(entry.image)
        first = by_image.setdefault(name, entry)
        if first is not entry:
            by_image[name] = first._replace(labels=list(dict.fromkeys((*first.labels, *entry.labels))))
    return list(by_image.values())


def _flagged(path: Path, rows: Sequence[_Row], header: _Row, image: int, *, empty_is_unknown: bool) -> Records:
    """The second layout."""
    flags = {**FLAGS, "": None if empty_is_unknown else False}
    numbered = image != 0 and _is_numbering(header, rows)
    columns = [k for k in range(int(numbered), len(header.cells)) if k != image]
    if not columns:
        raise DataError(f"{path}, line {header.line}: no column 'labels', and no columns of labels with 0 and 1")
    for k in columns:
        if not header.cells[k]:
            raise DataError(f"{path}, line {header.line}: column {k + 1} has no name: name it or remove it")

    def entry(row: _Row) -> Entry:
        where = f"{path}, line {row.line}"
        for k in columns:
            if row.cells[k].lower() not in flags:
                raise DataError(
                    f"{where}, column {header.cells[k]!r}: {row.cells[k][:80]!r} is not 0, 1 or -1; without a column "
                    "'labels', every column besides the image is a label"
                )
        said = {header.cells[k]: flags[row.cells[k].lower()] for k in columns}
        unknown = [label for label, flag in said.items() if flag is None]
        return Entry(where, row.cells[image], [label for label, flag in said.items() if flag], unknown)

    notes = ("the column that numbers the rows is not read",) if numbered else ()
    return _collected(path, list(map(entry, rows)), [header.cells[k] for k in columns], notes)


def _collected(path: Path, entries: Sequence[Entry], classes: list[str] | None, notes: tuple[str, ...]) -> Records:
    without = sum(not entry.labels for entry in entries)
    if without:
        notes = (*notes, f"images without labels: {without:,}")
    return collect(entries, str(path), classes=classes, notes=notes)
