"""A folder of images with a text file of labels beside each: `a.jpg` and `a.txt`, at any depth.

A text file has one label a line, or several with a separator between them; an empty one means that its image has no
labels. `classes.txt` in the folder itself, one label a line, fixes the classes and their order.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from datasets.formats.text import labels_in, read_text, separator_of
from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError, Entry, Records, collect, first_few

__all__ = ["read_folder"]

CLASSES = "classes.txt"
YOLO_BOX = re.compile(r"\d+(\s+-?\d*\.?\d+(e-?\d+)?){4,}")


def read_folder(folder: Path, *, separator: str = "auto") -> Records:
    """The records of the images that have a text file, in ASCII order of their paths below the folder.

    Hidden files and folders are not read, links to folders are not followed. Notes count the images without a text
    file, which are left out, and the text files without an image.

    Args:
        folder: where images and text files are.
        separator: between the labels of a line; "auto": the first of | ; , that occurs in any file; "": a line is
            one label.

    Returns:
        Records whose images are absolute paths; the classes are those of `classes.txt`, or the labels in ASCII order.

    Raises:
        DataError: naming file and line, for a label that is not in `classes.txt`, boxes in place of labels, or text
            that is not UTF-8; if no image has a text file; if there are no labels.
        OSError: if a file cannot be read.
    """
    images, texts = _files(folder)
    pairs = _pairs(images, texts)
    if not pairs:
        raise DataError(
            f"{folder}: no image has a text file of its labels beside it (a.jpg and a.txt), and there is no VOC XML; "
            "give such a folder, or a .json, .csv or .tsv"
        )
    classes = _classes(folder / CLASSES) if CLASSES in texts and CLASSES not in pairs.values() else None
    content = {text: read_text(folder / text) for text in dict.fromkeys(pairs.values())}
    sign, notes = separator_of(content.values(), separator)
    labels = {text: _labels(folder / text, lines, sign, classes) for text, lines in content.items()}
    if classes is None and not any(labels.values()):
        raise DataError(f"{folder}: every text file is empty, so there are no labels")
    top = os.path.abspath(folder)
    entries = [Entry(str(folder / text), os.path.join(top, image), labels[text]) for image, text in pairs.items()]
    counts = {
        "images without a text file, left out": set(images) - set(pairs),
        "text files without an image, not read": set(texts) - set(pairs.values()) - ({CLASSES} if classes else set()),
        "images with an empty text file, which have no labels": {i for i, text in pairs.items() if not labels[text]},
    }
    notes = (*notes, *(f"{what}: {len(names):,} ({first_few(names)})" for what, names in counts.items() if names))
    return collect(entries, str(folder), classes=classes, notes=notes)


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Images and text files below a folder, relative to it, in ASCII order."""

    def fail(error: OSError) -> None:
        raise error

    files: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(parent).relative_to(folder)
        files += [(below / name).as_posix() for name in names if not name.startswith(".")]
    files.sort()
    images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
    return images, [file for file in files if file.lower().endswith(".txt")]


def _pairs(images: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Image to text file, for the images that have one."""
    text_of = {os.path.splitext(text)[0]: text for text in texts}
    stems = ((image, os.path.splitext(image)[0]) for image in images)
    return {image: text_of[stem] for image, stem in stems if stem in text_of}


def _classes(path: Path) -> tuple[str, ...]:
    classes: dict[str, None] = {}
    for i, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip() in classes:
            raise DataError(f"{path}, line {i}: {line.strip()!r} is listed twice")
        classes |= dict.fromkeys(labels_in(line, ""))
    if not classes:
        raise DataError(f"{path}: the list of classes is empty")
    return tuple(classes)


def _labels(path: Path, text: str, separator: str, classes: Collection[str] | None) -> list[str]:
    labels: list[str] = []
    for i, line in enumerate(text.split("\n"), 1):
        if YOLO_BOX.fullmatch(line.strip()):
            raise DataError(f"{path}, line {i}: {line.strip()!r} is a box of YOLO; labels by name are needed")
        named = labels_in(line, separator)
        unknown = [label for label in named if classes is not None and label not in classes]
        if unknown:
            raise DataError(f"{path}, line {i}: label {unknown[0]!r} is not in {CLASSES}: add it there, or correct it")
        labels += named
    return labels
