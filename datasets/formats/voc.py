"""PASCAL VOC: one XML per image (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html).

    VOC2007/Annotations/000005.xml, VOC2007/JPEGImages/000005.jpg, VOC2007/ImageSets/Main/trainval.txt

Objects marked as difficult or truncated count as present, unless a caller wants difficult ones left out.
"""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.parsers.expat import ErrorString

from datasets.formats.text import read_text
from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError, Entry, MissingFileError, Records, collect, first_few
from files import read_bytes

__all__ = ["is_image_set", "is_voc", "read_folder", "read_image_set"]

ONE_CLASS = re.compile(r"\S+\s+(-1|0|1)")


class _Annotation(NamedTuple):
    """What one XML says: the name of the image, "" if there is none; the labels of its objects; which are difficult."""

    filename: str
    labels: tuple[str, ...]
    is_difficult: tuple[bool, ...]


class _Images(NamedTuple):
    """A folder of images, absolute; the names in it; name without suffix to name."""

    folder: str
    names: frozenset[str]
    of_stem: Mapping[str, str]


def is_voc(folder: Path) -> bool:
    """Whether a folder has `Annotations/` or is a folder of XML files."""
    return (folder / "Annotations").is_dir() or bool(_xml_names(folder))


def read_folder(folder: Path) -> Records:
    """The records of every XML of a VOC folder, in ASCII order of their names.

    Images are absolute paths in `JPEGImages/`, beside a folder of XML files as in VOC, or among the XML files where
    there is none. They bear the name that the XML says, or that of the XML if there is no such file.

    Args:
        folder: one with `Annotations/`, or one of XML files; hidden files are not read.

    Raises:
        DataError: naming the file, if an XML is broken, is no annotation of VOC, or has a document type.
        OSError: if a file cannot be read.
    """
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    names = sorted(_xml_names(annotations))
    if not names:
        raise DataError(f"{annotations}: there is no XML file in it")
    images = _images(annotations)
    records = _records([(str(annotations / name), annotations / name) for name in names], folder, images)
    left_out = images.names - {os.path.basename(image) for image in records.images}
    notes = (f"images without an XML, left out: {len(left_out):,} ({first_few(left_out)})",) if left_out else ()
    return records._replace(notes=(*records.notes, *notes))


def is_image_set(path: Path) -> bool:
    """Whether a text file is one of `ImageSets/` or of a folder in it."""
    return "ImageSets" in (path.parent.name, path.parent.parent.name)


def read_image_set(path: Path, *, difficult: bool = True) -> Records:
    """The records of a list in `ImageSets/Main/`, such as `trainval.txt`, in its order.

    Args:
        path: of the list; it holds the name of an XML of `Annotations/` a line, without ".xml".
        difficult: whether difficult objects count as present.

    Raises:
        MissingFileError: naming the line, if there is no such XML.
        DataError: if the list is empty or is that of a single class (`dog_trainval.txt`), and as `read_folder`.
        OSError: if a file cannot be read.
    """
    top = path.parents[1] if path.parent.name == "ImageSets" else path.parents[2]
    annotations = top / "Annotations"
    listed: list[tuple[str, Path]] = []
    for i, line in enumerate(map(str.strip, read_text(path).split("\n")), 1):
        if ONE_CLASS.fullmatch(line):
            raise DataError(
                f"{path}, line {i}: {line!r} has a second column, as lists of a single class do: use the list of all "
                "images, as trainval.txt"
            )
        xml = annotations / f"{line}.xml"
        if line and not xml.is_file():
            raise MissingFileError(f"{path}, line {i}: no file {xml}: a line is the name of an XML without its suffix")
        if line:
            listed.append((f"{path}, line {i}", xml))
    if not listed:
        raise DataError(f"{path}: the list is empty")
    return _records(listed, path, _images(annotations), difficult=difficult)


def _xml_names(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.lower().endswith(".xml") and not name.startswith(".")]


def _images(annotations: Path) -> _Images:
    beside = annotations.parent / "JPEGImages"
    folder = beside if beside.is_dir() or annotations.name == "Annotations" else annotations
    files = sorted(os.listdir(folder)) if folder.is_dir() else []
    images = [name for name in files if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
    of_stem = {os.path.splitext(name)[0]: name for name in reversed(images)}
    return _Images(os.path.abspath(folder), frozenset(images), of_stem)


def _records(
    listed: Sequence[tuple[str, Path]], source: Path, images: _Images, *, difficult: bool = True
) -> Records:  # fmt: skip
    """Records of XML files, each with its place in messages."""
    annotations = [_parse(xml) for _, xml in listed]
    entries = [
        Entry(where, _image(annotation.filename, xml.stem, images), _present(annotation, difficult=difficult))
        for (where, xml), annotation in zip(listed, annotations, strict=True)
    ]
    without = sum(not annotation.labels for annotation in annotations)
    if without == len(annotations):
        raise DataError(f"{source}: no XML has an object")
    counts = {
        "images without objects, which have no labels": without,
        f"difficult objects, {'present' if difficult else 'left out'}": sum(sum(a.is_difficult) for a in annotations),
    }
    notes = tuple(f"{what}: {count:,}" for what, count in counts.items() if count)
    return collect(entries, str(source), notes=notes)


def _present(annotation: _Annotation, *, difficult: bool) -> tuple[str, ...]:
    pairs = zip(annotation.labels, annotation.is_difficult, strict=True)
    return tuple(label for label, is_difficult in pairs if difficult or not is_difficult)


def _image(filename: str, stem: str, images: _Images) -> str:
    """Where the image of an XML is, or should be."""
    if not filename or not os.path.isfile(os.path.join(images.folder, filename)):
        filename = images.of_stem.get(stem, filename or f"{stem}.jpg")
    return os.path.join(images.folder, filename)


def _parse(xml: Path) -> _Annotation:
    content = read_bytes(xml)
    if re.search(rb"<!(DOCTYPE|ENTITY)", content.replace(b"\0", b"")):  # UTF-16 has a zero in every letter
        raise DataError(f"{xml}: a document type (<!DOCTYPE>) could expand without bounds and is not read: remove it")
    try:
        top = ET.fromstring(content)
    except ET.ParseError as error:
        raise DataError(f"{xml}, line {error.position[0]}: broken XML: {ErrorString(error.code)}") from error
    except (LookupError, ValueError) as error:
        raise DataError(f"{xml}, line 1: {error}: save the file as UTF-8") from error
    if top.tag != "annotation":
        raise DataError(f"{xml}: <{top.tag}> where annotations of VOC have <annotation>")
    objects = top.findall("object")
    labels = tuple(item.findtext("name", "").strip() for item in objects)
    if not all(labels):
        raise DataError(f"{xml}: object {labels.index('') + 1} of {len(labels)} has no <name>")
    is_difficult = tuple(item.findtext("difficult", "0").strip() == "1" for item in objects)
    return _Annotation(top.findtext("filename", "").strip().replace("\\", "/"), labels, is_difficult)
