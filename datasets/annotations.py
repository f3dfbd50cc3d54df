"""From the name of an annotation file or folder to its records: finds out which format it has."""

import os
import re
from pathlib import Path

from datasets import shapes
from datasets.formats import instances, release, table, textfiles, voc
from datasets.formats.text import parse_json
from datasets.images import SHAPES
from datasets.records import DataError, MissingFileError, Records
from files import read_text

__all__ = ["read_records"]

SHAPES_SPLITS = ("train", "val", "test", "all")
SHAPES_SOURCE = re.compile(rf"(?P<split>{'|'.join(SHAPES_SPLITS)})(?:\[(?P<start>\d*):(?P<stop>\d*)\])?")
TABLES = (".csv", ".tsv")


def read_records(source: str, root: str, *, separator: str = "auto", empty_is_unknown: bool = False) -> Records:
    """The records of an annotation file, of a folder, or of a split of the embedded world.

    Args:
        source: `shapes:train`, `shapes:val`, `shapes:test`, `shapes:all`, or a part such as `shapes:train[:100]`; a
            JSON of the release or a COCO `instances_*.json`; a CSV or TSV; a VOC folder or a list in its
            `ImageSets/Main`; a folder of images with a text file each.
        root: what a relative path is relative to.
        separator: between the labels of a cell or line, see `formats.table`.
        empty_is_unknown: see `formats.table`.

    Returns:
        Records in the order of the file; a folder in the order of its file names.

    Raises:
        MissingFileError: if there is no such file or folder.
        DataError: if it is in none of the formats, or contradicts itself.
    """
    if source.startswith(SHAPES):
        return _shapes_records(source)
    if not source:
        raise MissingFileError("no annotation file is set: DATASETS.TRAIN and DATASETS.TEST name them")
    path = Path(root, os.path.expanduser(source))
    try:
        return _read(path, separator, empty_is_unknown)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"no annotation file {error.filename or path}: set DATASETS.ROOT_DIR, or the path in DATASETS.TRAIN, VAL, "
            "TEST or TEST_ZSL; docs/data.md says where to get the files"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file (byte {error.start})") from error
    except OSError as error:
        raise DataError(f"cannot read the annotation file {error.filename or path}: {error.strerror}") from error


def _read(path: Path, separator: str, empty_is_unknown: bool) -> Records:
    if path.is_dir():
        return voc.read_folder(path) if voc.is_voc(path) else textfiles.read_folder(path, separator=separator)
    kind = path.suffix.lower()
    if kind in TABLES:
        return table.read_table(path, separator=separator, empty_is_unknown=empty_is_unknown)
    if kind == ".txt" and voc.is_image_set(path):
        return voc.read_image_set(path)
    if kind == ".json" or not path.exists():
        content = parse_json(read_text(path, "utf-8-sig"), path)
        return instances.records_of(content, path) if instances.is_coco(content) else release.records_of(content, path)
    raise DataError(
        f"{path}: {kind or 'a file without a suffix'} is no annotation format; there are .json, .csv, .tsv, a VOC "
        "folder and a folder of images with text files (docs/data.md)"
    )


def _shapes_records(source: str) -> Records:
    match = SHAPES_SOURCE.fullmatch(source.removeprefix(SHAPES))
    if match is None:
        known = ", ".join(SHAPES + name for name in SHAPES_SPLITS)
        raise DataError(
            f"{source!r} is no split of the embedded world; there are {known}, or a part, as {known[:12]}[:9]"
        )
    split = match["split"]
    _, size, classes = shapes.SPLITS[split]
    chosen = range(size)[slice(*(int(end) if end else None for end in match.group("start", "stop")))]
    images = tuple(f"{SHAPES}{split}/{i}" for i in chosen)
    return Records(images, tuple(shapes.scene_labels(split, i) for i in chosen), classes, source)
