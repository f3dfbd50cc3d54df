"""Text of users' own files: its encoding, its lines, and what separates labels in it."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from datasets.records import DataError
from files import read_bytes

__all__ = ["labels_in", "parse_json", "read_text", "separator_of"]

AUTO = "auto"
SEPARATORS = ("|", ";", ",")


def read_text(path: Path) -> str:
    r"""The text of a UTF-8 file with `\n` at the end of lines, without a byte order mark.

    Raises:
        DataError: naming the line of the first byte that is not UTF-8; if it is no text at all.
        OSError: if the file cannot be read.
    """
    content = read_bytes(path)
    if b"\0" in content[:1024] and not content.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16 is text
        raise DataError(f"{path}: a binary file, not text")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = _unix(content[: error.start].decode()).count("\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text: save the file as UTF-8") from error
    return _unix(text).removeprefix("\ufeff")


def parse_json(text: str, path: Path) -> Any:
    """What a JSON text holds; `path` is for messages.

    Raises:
        DataError: naming line and column, if it is broken, or nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{path}: JSON nested too deeply to be an annotation file") from error
    except ValueError as error:
        raise DataError(f"{path}: JSON with a number of thousands of digits is no annotation file") from error


def separator_of(texts: Collection[str], separator: str) -> tuple[str, tuple[str, ...]]:
    """The separator between labels, and what to note of it.

    Args:
        texts: cells or files of labels.
        separator: as the user set it; "auto": the first of | ; , that occurs in any text, none if none does.

    Returns:
        The separator, "" if a whole line is one label; a note if it was found and not set.
    """
    if separator != AUTO:
        return separator, ()
    for sign in SEPARATORS:
        if any(sign in text for text in texts):
            note = f"labels are taken to be separated by {sign!r}; where it is part of a label, set DATASETS.SEPARATOR"
            return sign, (f'{note} ("": a cell or line is one label)',)
    return "", ()


def labels_in(text: str, separator: str) -> list[str]:
    """The labels of a cell or file in order, without blanks around them; the end of a line always separates."""
    lines = text.split("\n")
    parts = (part for line in lines for part in (line.split(separator) if separator else [line]))
    return [label for label in map(str.strip, parts) if label]


def _unix(text: str) -> str:
    return re.sub("\r\n?", "\n", text)
