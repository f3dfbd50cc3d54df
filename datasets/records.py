"""Annotations: which images there are and which labels each has, from a file or from the embedded world.

The file format is that of the authors' release:
`{"images": [["folder/a.jpg", ["dog", "dog", "tie"]], ...], "classes": ["dog", "tie", ...]}`; other keys are
free for notes. Names may repeat, once per object.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from datasets import shapes

__all__ = ["DataError", "MissingFileError", "Records", "read_records"]

SHAPES = "shapes:"
SHAPES_SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """A data set that cannot be used as it is; the message is one line and says what to change."""


class MissingFileError(DataError):
    """An annotation file that is not there."""


class Records(NamedTuple):
    """The images of one list and their labels.

    `images` are paths as they stand in the file, or references such as `shapes:test/17`; each occurs once.
    `labels[i]` are the labels of `images[i]`, each once and all from `classes`. `source` is for messages.
    """

    images: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    classes: tuple[str, ...]
    source: str


def read_records(source: str, root: str) -> Records:
    """The records of an annotation file or of a split of the embedded world.

    Args:
        source: `shapes:train`, `shapes:val`, `shapes:test`, or the path of a JSON file.
        root: what a relative path is relative to.

    Returns:
        Records in the order of the file. Repeated names are kept once, in order of first mention; so is
        an image that is listed again with the same labels.

    Raises:
        MissingFileError: if there is no such file.
        DataError: if it is not in the format, or contradicts itself.
    """
    if source.startswith(SHAPES):
        return _shapes_records(source)
    if not source:
        raise MissingFileError("no annotation file is set: DATASETS.TRAIN and DATASETS.TEST name them")
    path = Path(root, source)
    return _check(_parse(path), path)


def _shapes_records(source: str) -> Records:
    split = source.removeprefix(SHAPES)
    if split not in SHAPES_SPLITS:
        known = ", ".join(SHAPES + name for name in SHAPES_SPLITS)
        raise DataError(f"{source!r} is no split of the embedded world; there are {known}")
    _, size, classes = shapes.SPLITS[split]
    images = tuple(f"{source}/{i}" for i in range(size))
    return Records(images, tuple(shapes.scene_labels(split, i) for i in range(size)), classes, source)


def _parse(path: Path) -> Any:
    """What the JSON file holds."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise MissingFileError(
            f"no annotation file {path}: set DATASETS.ROOT_DIR, or the path in DATASETS.TRAIN, VAL, TEST or "
            "TEST_ZSL; docs/data.md says where to get the files"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: broken JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a UTF-8 text file (byte {error.start})") from error
    except OSError as error:
        raise DataError(f"cannot read the annotation file {path}: {error.strerror}") from error


def _check(content: Any, path: Path) -> Records:
    """Records from parsed JSON, after every check that needs no image."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "classes")):
        raise DataError(f'{path}: expected {{"images": [[path, [labels]], ...], "classes": [labels]}}')
    classes = _classes(content["classes"], path)
    seen: dict[str, tuple[str, ...]] = {}
    for where, image, labels in _entries(content["images"], path):
        unknown = [label for label in labels if label not in classes]
        if unknown:
            raise DataError(f"{where}: label {unknown[0]!r} of {image!r} is not among the classes")
        if set(seen.setdefault(image, labels)) != set(labels):
            raise DataError(f"{where}: {image!r} is listed before with other labels")
    return Records(tuple(seen), tuple(seen.values()), tuple(classes), str(path))


def _classes(names: list[Any], path: Path) -> dict[str, None]:
    """The class names as an ordered set."""
    if not names:
        raise DataError(f"{path}: the list of classes is empty")
    classes: dict[str, None] = {}
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: classes[{i}] is {name!r}, not a name")
        if name in classes:
            raise DataError(f"{path}: classes[{i}]: {name!r} is listed twice")
        classes[name] = None
    return classes


def _entries(images: list[Any], path: Path) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Place in the file, image and distinct labels of each entry."""
    for i, entry in enumerate(images):
        match entry:
            case [str(image), [*labels]] if image and all(isinstance(label, str) for label in labels):
                yield f"{path}: images[{i}]", image, tuple(dict.fromkeys(labels))
            case _:
                raise DataError(f"{path}: images[{i}] is {str(entry)[:80]!r}, not [path, [labels]]")
