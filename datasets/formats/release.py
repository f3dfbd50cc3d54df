"""The JSON of the authors' release, which is also the format of our own lists.

`{"images": [["folder/a.jpg", ["dog", "dog", "tie"]], ...], "classes": ["dog", "tie", ...]}`. Names may repeat, once
per object. Our own lists also hold "origin": where they come from, by which rule, and checksums (docs/data.md).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.records import DataError, Entry, Records, collect

__all__ = ["checksum", "dump", "records_of"]

EXPECTED = '{"images": [[path, [labels]], ...], "classes": [labels]}'


def records_of(content: Any, path: Path) -> Records:
    """Records of parsed JSON; repeated names are kept once, in order of first mention.

    Raises:
        DataError: if it is not in the format, or contradicts itself.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in ("images", "classes")):
        raise DataError(f"{path}: expected {EXPECTED}")
    origin = content.get("origin", {})
    if not isinstance(origin, dict):
        raise DataError(f'{path}: "origin" has to be an object, as prepare_data.py writes it')
    return collect(_entries(content["images"], path), str(path), classes=content["classes"], origin=origin)


def _entries(images: list[Any], path: Path) -> Iterator[Entry]:
    for i, entry in enumerate(images):
        match entry:
            case [str(image), [*labels]] if image and all(isinstance(label, str) for label in labels):
                yield Entry(f"{path}: images[{i}]", image, labels)
            case _:
                raise DataError(f"{path}: images[{i}] is {str(entry)[:80]!r}, not [path, [labels]]")


def checksum(records: Records) -> str:
    """SHA-256 of images, labels and classes: two lists have the same one if and only if they say the same."""
    content = json.dumps([records.images, records.labels, records.classes], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def dump(records: Records) -> str:
    """The text of a list: one image a line, `origin` with the checksum of the list in front.

    Raises:
        DataError: if a label is unknown for an image, which the format cannot say.
    """
    if any(records.unknown):
        raise DataError(f"{records.source}: the release's format cannot say that a label is unknown: write 0 for -1")

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    origin = json.dumps({**records.origin, "checksum": checksum(records)}, ensure_ascii=False, indent=1)
    rows = (compact([image, labels]) for image, labels in zip(records.images, records.labels, strict=True))
    images = ",\n".join(rows)
    return f'{{"origin": {origin},\n"classes": {compact(records.classes)},\n"images": [\n{images}\n]}}\n'
