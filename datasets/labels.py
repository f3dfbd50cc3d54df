"""What a user says about labels: words or a whole text to encode in place of the name, and other spellings.

A JSON object, `{"sofa": {"synonyms": ["couch"], "name": "sofa or couch"}, "hs-Hat": {"prompt": "A pedestrian wearing a
hat."}}`. `name` stands in the template instead of the label, `prompt` is the whole text, `synonyms` are other
spellings of the label in annotation files. Labels that are not mentioned take the template.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets.formats.text import parse_json
from datasets.records import DataError, MissingFileError
from files import read_text

__all__ = ["LabelNotes", "read_labels", "read_names"]

KEYS = {"name", "prompt", "synonyms"}


class LabelNotes(NamedTuple):
    """`texts`: label to the text that is encoded; `synonyms`: other spelling to label; `labels`: all mentioned."""

    texts: Mapping[str, str]
    synonyms: Mapping[str, str]
    labels: frozenset[str]


def read_labels(path: Path, template: str) -> LabelNotes:
    """The content of a label file.

    Args:
        path: the JSON file.
        template: such as "A photo of a {}.".

    Raises:
        MissingFileError: if there is no such file.
        DataError: naming the label, if the file is not in the format, or a spelling stands for two labels.
    """
    texts: dict[str, str] = {}
    synonyms: dict[str, str] = {}
    content = parse_json(_text(path), path)
    for label, entry in _entries(content, path):
        if "prompt" in entry or "name" in entry:
            texts[label] = entry["prompt"] if "prompt" in entry else template.format(entry["name"])
        for spelling in entry.get("synonyms", ()):
            if spelling in content or spelling in synonyms:
                other = "itself" if spelling in content else repr(synonyms[spelling])
                raise DataError(f"{path}: {spelling!r}, a synonym of {label!r}, already stands for {other}")
            synonyms[spelling] = label
    by_text: dict[str, str] = {}
    for label, text in texts.items():
        if (other := by_text.setdefault(text, label)) != label:
            raise DataError(f"{path}: {other!r} and {label!r} have the same text {text!r}: nothing tells them apart")
    return LabelNotes(texts, synonyms, frozenset(content))


def read_names(names: tuple[str, ...], root: str, key: str) -> tuple[str, ...]:
    """The names of labels, from a text file with one a line if the only one ends in ".txt".

    Raises:
        DataError: naming `key` or the file, if a name is listed twice or the file cannot be read.
    """
    source = key
    if len(names) == 1 and isinstance(names[0], str) and names[0].endswith(".txt"):
        source = str(Path(root, names[0]))
        lines = _text(Path(source)).splitlines()
        names = tuple(line.strip() for line in lines if line.strip())
        if not names:
            raise DataError(f"{source}: there is no label in it")
    met: set[str] = set()
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{source}: {name!r} is not the name of a label")
        if name in met:
            raise DataError(f"{source}: {name!r} is listed twice")
        met.add(name)
    return tuple(names)


def _entries(content: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Labels with their checked entries."""
    if not isinstance(content, dict):
        raise DataError(f'{path}: expected {{"label": {{"name": ..., "prompt": ..., "synonyms": [...]}}, ...}}')
    for label, entry in content.items():
        known = isinstance(entry, dict) and set(entry) <= KEYS and not {"name", "prompt"} <= set(entry)
        if not known:
            raise DataError(f'{path}: {label!r} takes "name" or "prompt", and "synonyms"; it has {str(entry)[:80]!r}')
        words = [entry[key] for key in ("name", "prompt") if key in entry]
        spellings = entry.get("synonyms", [])
        if not isinstance(spellings, list) or not all(isinstance(w, str) and w.strip() for w in words + spellings):
            raise DataError(f"{path}: {label!r}: names, prompts and synonyms are texts and not empty")
        yield label, entry


def _text(path: Path) -> str:
    try:
        return read_text(path, "utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"no file {path}: DATASETS.LABELS, SEEN and UNSEEN name files below ROOT_DIR") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file (byte {error.start})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
