"""The official tables of NUS-WIDE (Chua et al. 2009): image lists, Flickr tags and human labels of concepts.

Row i of a table belongs to line i of the image list of the same part. Downloads of different years have the folder
`TrainTestLabels` and `AllLabels` below `Groundtruth` or beside it.
"""

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.benchmarks.downloads import Downloads, Progress
from datasets.records import DataError, Entry, Records, collect
from files import open_regular, read_bytes, read_text

__all__ = ["CONCEPTS", "SEEN", "TAGS", "Names", "find_names", "need_concepts", "need_names", "read_part"]

TAGS, CONCEPTS, SEEN = 1_000, 81, 925  # SEEN: tags that are not concepts
WHITESPACE = b" \t\r\n"
ONE = ord("1")
TAG_LIST = ("NUS_WID_Tags/TagList1k.txt", "TagList1k.txt")
CONCEPT_LIST = ("ConceptsList/Concepts81.txt", "Concepts81.txt")


class Names(NamedTuple):
    """The 1000 tags and the 81 concepts, in the order of the files."""

    tags: tuple[str, ...]
    concepts: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """The tags that are not concepts, 925."""
        return tuple(tag for tag in self.tags if tag not in set(self.concepts))


class ImageList(NamedTuple):
    """The images of an official list in its order, and the file that holds it."""

    path: Path
    images: tuple[str, ...]  # as `actor/0001_2124494179.jpg`


Rows = list[tuple[str, ...]]  # the labels of each image


def need_names(downloads: Downloads) -> Names:
    """The names of tags and concepts.

    Raises:
        MissingFileError: if `TagList1k.txt` or `Concepts81.txt` is missing.
        DataError: if there are not 1000 tags and 81 concepts, with 75 in common.
    """
    tags = _names(downloads.need("the list of tags", *TAG_LIST), TAGS)
    names = Names(tags, need_concepts(downloads))
    if len(names.seen) != SEEN:
        raise DataError(f"{downloads.root}: {len(names.seen):,} tags are not among the concepts, expected {SEEN}")
    return names


def need_concepts(downloads: Downloads) -> tuple[str, ...]:
    """The names of the 81 concepts, in the order of `Concepts81.txt`; raises as `need_names`."""
    return _names(downloads.need("the list of concepts", *CONCEPT_LIST), CONCEPTS)


def find_names(downloads: Downloads) -> Names | None:
    """As `need_names`, or None if one of the two files is missing."""
    there = downloads.find(*TAG_LIST) and downloads.find(*CONCEPT_LIST)
    return need_names(downloads) if there else None


def _names(path: Path, count: int) -> tuple[str, ...]:
    names = _lines(path)
    if len(set(names)) != count or len(names) != count:
        raise DataError(f"{path}: expected {count:,} different names, has {len(set(names)):,} in {len(names):,} lines")
    return names


def _lines(path: Path) -> tuple[str, ...]:
    """The lines without the white space around them and without blank ones at the end."""
    try:
        lines = read_text(path, "utf-8-sig").rstrip().split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file (byte {error.start})") from error
    lines = [line.strip() for line in lines]
    if "" in lines:
        raise DataError(f"{path}, line {lines.index('') + 1}: the line is blank")
    return tuple(lines)


def read_part(downloads: Downloads, part: str, names: Names, progress: Progress, *, with_concepts: bool) -> Records:
    """The images of a part of NUS-WIDE with their tags, concepts excepted, and their human-made concept labels.

    Without the tables of the part, those of the whole data set (`AllTags1k.txt`, `AllLabels`) take their place.

    Args:
        downloads: with `ImageList`, `NUS_WID_Tags` and `Groundtruth`, or what is in them.
        part: "Train" or "Test".
        names: of tags and concepts.
        progress: shows the progress.
        with_concepts: False reads tags only, and the classes are the tags.

    Returns:
        Records with paths as `actor/0001_2124494179.jpg`, in the order of the image list.

    Raises:
        MissingFileError: if a file is missing.
        DataError: naming file and row, if a value is not 0 or 1, a row is too short or too long, or the number of
            rows is not that of the images.
    """
    listed = _image_list(downloads, part)
    tags = _tags(downloads, part, listed, names, progress)
    concepts = _concepts(downloads, part, listed, names, progress) if with_concepts else repeat((), len(tags))
    entries = (
        Entry(f"{listed.path}, line {i}", image, (*tag_row, *concept_row))
        for i, (image, tag_row, concept_row) in enumerate(zip(listed.images, tags, concepts, strict=True), 1)
    )
    return collect(entries, str(listed.path), classes=names.seen + (names.concepts if with_concepts else ()))


def _image_list(downloads: Downloads, part: str) -> ImageList:
    name = f"{part}Imagelist.txt"
    path = downloads.need(f"the list of {part or 'all'} images", f"ImageList/{name}", name)
    return ImageList(path, tuple(line.replace("\\", "/") for line in _lines(path)))


def _tags(downloads: Downloads, part: str, listed: ImageList, names: Names, progress: Progress) -> Rows:
    places = [folder + name for name in (f"{part}_Tags1k.dat", "AllTags1k.txt") for folder in ("NUS_WID_Tags/", "")]
    path = downloads.need(f"the table of {part} tags", *places)
    seen = set(names.seen)
    labels = [(tag,) if tag in seen else () for tag in names.tags]
    if path.name != "AllTags1k.txt":
        return _read_tags(path, listed, labels, progress)
    everything = _image_list(downloads, "")
    return _picked(_read_tags(path, everything, labels, progress), everything, listed)


def _concepts(downloads: Downloads, part: str, listed: ImageList, names: Names, progress: Progress) -> Rows:
    def places(folder: str, end: str) -> list[tuple[str, ...]]:
        parents = (f"Groundtruth/{folder}/", f"{folder}/", "")
        return [tuple(f"{parent}Labels_{name}{end}.txt" for parent in parents) for name in names.concepts]

    of_part = places("TrainTestLabels", f"_{part}")
    if None in [downloads.find(*files) for files in of_part]:
        candidates = [downloads.find(*files) for files in places("AllLabels", "")]
        of_all = [path for path in candidates if path is not None]
        if len(of_all) == len(candidates):
            everything = _image_list(downloads, "")
            return _picked(_read_concepts(of_all, everything, names.concepts, progress), everything, listed)
    paths = [downloads.need(f"a file of {part} labels", *files) for files in of_part]
    return _read_concepts(paths, listed, names.concepts, progress)


def _picked(rows: Rows, everything: ImageList, listed: ImageList) -> Rows:
    """The rows of the images of one list out of those of the list of all images."""
    row_of = dict(zip(everything.images, rows, strict=True))
    try:
        return [row_of[image] for image in listed.images]
    except KeyError as error:
        raise DataError(f"{listed.path}: the image {error} is not in {everything.path}") from error


def _read_tags(path: Path, listed: ImageList, labels: Sequence[tuple[str, ...]], progress: Progress) -> Rows:
    """The labels of each row; `labels[k]` is what a 1 in column k stands for."""
    rows: Rows = []
    with open_regular(path) as file:
        for number, line in enumerate(progress(file, f"rows of {path.name}"), 1):
            values = line.split()
            if not values and len(rows) == len(listed.images):
                continue  # blank lines at the end
            digits = b"".join(values)  # as many as values only if each is one digit
            if not len(values) == len(digits) == len(labels) or digits.translate(None, b"01"):
                raise DataError(f"{path}, row {number:,}: expected {len(labels):,} values 0 or 1, {_wrong(values)}")
            ones = np.flatnonzero(np.frombuffer(digits, np.uint8) == ONE)
            rows.append(tuple(label for k in ones.tolist() for label in labels[k]))
    _check_count(len(rows), path, listed)
    return rows


def _wrong(values: Sequence[bytes]) -> str:
    wrong = [value.decode(errors="replace") for value in values if value not in (b"0", b"1")]
    return f"found {wrong[0][:40]!r}" if wrong else f"found {len(values):,} values"


def _read_concepts(paths: Sequence[Path], listed: ImageList, concepts: Sequence[str], progress: Progress) -> Rows:
    table = np.zeros((len(listed.images), len(concepts)), dtype=bool)
    for k, path in enumerate(progress(paths, "files of concept labels")):
        values = read_bytes(path).translate(None, WHITESPACE)
        if wrong := values.translate(None, b"01"):
            row = values.index(wrong[:1]) + 1
            raise DataError(f"{path}, row {row:,}: expected 0 or 1, found {wrong[:1].decode(errors='replace')!r}")
        _check_count(len(values), path, listed)
        table[:, k] = np.frombuffer(values, np.uint8) == ONE
    return [tuple(concepts[k] for k in np.flatnonzero(row).tolist()) for row in table]


def _check_count(rows: int, path: Path, listed: ImageList) -> None:
    if rows != len(listed.images):
        raise DataError(f"{path}: has {rows:,} rows, but {listed.path} names {len(listed.images):,} images")
