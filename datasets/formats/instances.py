"""COCO `instances_*.json`, the format of COCO and of most annotation tools (https://cocodataset.org/#format-data).

`{"images": [{"id": 7, "file_name": "a.jpg"}, ...], "categories": [{"id": 18, "name": "dog"}, ...],
"annotations": [{"image_id": 7, "category_id": 18, ...}, ...]}`. A label is present if an annotation of any kind, crowds
included, has it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.records import DataError, Entry, Records, collect

__all__ = ["is_coco", "records_of"]


def is_coco(content: Any) -> bool:
    """Whether parsed JSON is of COCO's family, which includes captions, panoptic files and detection results."""
    if isinstance(content, list):
        return bool(content) and isinstance(content[0], dict) and "image_id" in content[0]
    return isinstance(content, dict) and "classes" not in content and bool({"annotations", "categories"} & set(content))


def records_of(content: Any, path: Path) -> Records:
    """Records in the order of the images; the classes are the categories in the order of the file.

    Args:
        content: parsed JSON for which `is_coco` holds.
        path: of the file, for messages.

    Raises:
        DataError: naming the entry, if the file is another one of COCO's, lacks something or contradicts itself.
    """
    _check_kind(content, path)
    names: dict[int | str, str] = {}
    for i, number, name in _numbered(content, "categories", "name", path):
        if name in names.values():
            raise DataError(f"{path}: categories[{i}]: the name {name!r} is listed twice")
        names[number] = name
    files = {number: (i, file) for i, number, file in _numbered(content, "images", "file_name", path)}
    labels: dict[int | str, dict[str, None]] = {number: {} for number in files}
    for i, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{i}]"
        image = _known(annotation, "image_id", files, where)
        labels[image][names[_known(annotation, "category_id", names, where)]] = None
    entries = [Entry(f"{path}: images[{i}]", file, tuple(labels[number])) for number, (i, file) in files.items()]
    without = sum(not entry.labels for entry in entries)
    notes = (f"images without annotations, which have no labels: {without:,}",) if without else ()
    return collect(entries, str(path), classes=tuple(names.values()), notes=notes)


def _check_kind(content: Any, path: Path) -> None:
    """Raises unless the file holds annotations of instances."""
    way_out = "use instances_*.json"
    if isinstance(content, list):
        raise DataError(f"{path}: a list of detection results, which are no annotations: {way_out}")
    for key in ("images", "annotations", "categories"):
        values = content.get(key)
        if key == "annotations" and values and isinstance(values, list) and isinstance(values[0], dict):
            if "caption" in values[0]:
                raise DataError(f"{path}: annotations[0] is a caption and has no category: {way_out}")
            if "segments_info" in values[0]:
                raise DataError(f"{path}: annotations[0] has segments_info, as panoptic files do: {way_out}")
        if not isinstance(values, list):
            raise DataError(f'{path}: the list "{key}" of a COCO file is missing: {way_out}')


def _numbered(content: Mapping[str, Any], key: str, name: str, path: Path) -> Iterator[tuple[int, int | str, str]]:
    """Position, id and name of each category or image."""
    seen: set[int | str] = set()
    for i, entry in enumerate(content[key]):
        where = f"{path}: {key}[{i}]"
        match entry:
            case {"id": int() | str() as number} if isinstance(entry.get(name), str) and entry[name].strip():
                if number in seen:
                    raise DataError(f"{where}: the id {number!r} is listed twice")
                seen.add(number)
                yield i, number, entry[name]
            case _:
                raise DataError(f'{where} is {str(entry)[:80]!r}: it needs an "id" and a "{name}"')


def _known(annotation: Any, key: str, ids: Mapping[int | str, Any], where: str) -> int | str:
    """The image or category of an annotation."""
    if not isinstance(annotation, dict) or not isinstance(annotation.get(key), int | str):
        raise DataError(f'{where} is {str(annotation)[:80]!r}: it needs "image_id" and "category_id"')
    if annotation[key] not in ids:
        kind = "images" if key == "image_id" else "categories"
        raise DataError(f"{where}: {key} {annotation[key]!r} is not the id of any of the {kind}")
    return annotation[key]
