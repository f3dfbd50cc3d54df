"""The JSON of the authors' release, which is also the format of our own lists.

`{"images": [["folder/a.jpg", ["dog", "dog", "tie"]], ...], "classes": ["dog", "tie", ...]}`. Names may repeat, once
per object. Our own lists also hold "origin": where they come from, by which rule, and checksums (docs/data.md);
and with `"unlisted": "unknown"` an image may have labels that it does not list.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets.records import DataError, Entry, Records, alike, collect

__all__ = ["checksum", "dump", "only_listed", "records_of"]

EXPECTED = '{"images": [[path, [labels]], ...], "classes": [labels]}'
UNLISTED = ("absent", "unknown")  # what labels are that an image does not list; the first if nothing is said


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
    unlisted = content.get("unlisted", UNLISTED[0])
    if unlisted not in UNLISTED:
        raise DataError(f'{path}: "unlisted" is {str(unlisted)[:80]!r}; it has to be one of {", ".join(UNLISTED)}')
    records = collect(_entries(content["images"], path), str(path), classes=content["classes"], origin=origin)
    return only_listed(records) if unlisted == "unknown" else records


def only_listed(records: Records) -> Records:
    """The records of which nothing is known but the labels that images have."""
    rest = alike(lambda row: tuple(label for label in records.classes if label not in row))
    return records._replace(unknown=tuple(map(rest, records.labels)))


def _entries(images: list[Any], path: Path) -> Iterator[Entry]:
    for i, entry in enumerate(images):
        match entry:
            case [str(image), [*labels]] if image and all(isinstance(label, str) for label in labels):
                yield Entry(f"{path}: images[{i}]", image, labels)
            case _:
                raise DataError(f"{path}: images[{i}] is {str(entry)[:80]!r}, not [path, [labels]]")


def checksum(records: Records) -> str:
    """SHA-256 of images, labels and classes: two lists have the same one if and only if they say the same."""
    said = [records.images, records.labels, records.classes, *(["unknown"] if any(records.unknown) else [])]
    content = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def dump(records: Records) -> str:
    """The text of a list: one image a line, `origin` with the checksum of the list in front.

    Raises:
        DataError: if of an image one label is unknown and another one known to be absent.
    """
    unlisted = any(records.unknown)
    if unlisted and list(map(set, records.unknown)) != list(map(set, only_listed(records).unknown)):
        raise DataError(
            f"{records.source}: the format cannot tell labels that are not known from absent ones: write 0 for -1"
        )

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    origin = json.dumps({**records.origin, "checksum": checksum(records)}, ensure_ascii=False, indent=1)
    rows = (compact([image, labels]) for image, labels in zip(records.images, records.labels, strict=True))
    images = ",\n".join(rows)
    said = '"unlisted": "unknown",\n' if unlisted else ""
    return f'{{"origin": {origin},\n{said}"classes": {compact(records.classes)},\n"images": [\n{images}\n]}}\n'
