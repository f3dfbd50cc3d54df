"""From the name of an annotation file or folder to its records: finds out which format it has."""

import os
from pathlib import Path

from datasets.formats import instances, release, table, textfiles, voc
from datasets.formats.text import parse_json
from datasets.records import DataError, MissingFileError, Records
from datasets.worlds import is_reference, records_of
from files import read_text

__all__ = ["read_records"]

TABLES = (".csv", ".tsv")


def read_records(source: str, root: str, *, separator: str = "auto", empty_is_unknown: bool = False) -> Records:
    """The records of an annotation file, of a folder, or of a split of an embedded world.

    Args:
        source: a split such as `shapes:train` or `emoji:test`, or a part of one, `shapes:train[:100]`; a JSON of the
            release or a COCO `instances_*.json`; a CSV or TSV; a VOC folder or a list in its `ImageSets/Main`; a
            folder of images with a text file each.
        root: what a relative path is relative to.
        separator: between the labels of a cell or line, see `formats.table`.
        empty_is_unknown: see `formats.table`.

    Returns:
        Records in the order of the file; a folder in the order of its file names.

    Raises:
        MissingFileError: if there is no such file or folder.
        DataError: if it is in none of the formats, or contradicts itself.
    """
    if is_reference(source):
        return records_of(source)
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
