"""Visual Genome's 200 most frequent labels with partial labels, by the lists of SSGRL (Chen et al., ICCV 2019).

    train_list_500.txt, test_list_500.txt       2360596.jpg a line: 82,904 and 10,000 images
    vg_category_200_labels_index.json           {"2360596.jpg": [12, 5, ...], ...}; of the file for 500, the first 200
    vg_category_200_names.txt                   a name a line, in the order of those numbers

The lists are in SSGRL's repository; the numbers come with HCP-MLR-PL's data, and names with neither: whoever has them
writes the last file. Without the numbers, labels are derived from Visual Genome's own `objects.json` and
`object_alias.txt`, the 200 names of most objects, aliases being one: as in SALGL (Zhu et al., IJCAI 2023), and not
exactly what others have. Images are in `VG_100K`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.benchmarks.downloads import Downloads, Progress
from datasets.benchmarks.missing.sources import Sources
from datasets.formats.text import parse_json, read_text
from datasets.records import DataError, Entry, MissingFileError, Records, collect

__all__ = ["partial"]

LABELS = 200
NAMES = "vg_category_200_names.txt"
NUMBERS = tuple(f"vg_category_{count}_labels_index.json" for count in (200, 500))
DERIVED = (
    "the labels are derived from objects.json, since the protocol's vg_category_200_labels_index.json is not there: "
    "numbers on them are not comparable to published ones"
)


class _Labelled(NamedTuple):
    """Names of the labels, and the numbers of those of an image, by its file name."""

    names: tuple[str, ...]
    numbers: Mapping[str, Iterable[int]]
    source: Path


def partial(downloads: Downloads, progress: Progress) -> Sources:
    """The images of both lists, in their order."""
    path = downloads.find(*(folder + name for name in NUMBERS for folder in ("", "data/vg/")))
    labelled = _derived(downloads, progress) if path is None else _published(downloads, path)
    train, test = (_records(downloads, part, labelled) for part in ("train", "test"))
    return Sources(train, test, (DERIVED,) if path is None else (), exact=path is not None)


def _published(downloads: Downloads, path: Path) -> _Labelled:
    names_file = downloads.find(NAMES, f"data/vg/{NAMES}")
    if names_file is None:
        raise MissingFileError(
            f"no {NAMES} below {downloads.root}: {path.name} numbers the labels and does not name them; write their "
            f"names into it, one a line, or remove {path.name} to derive labels from objects.json"
        )
    names = tuple(line.strip() for line in read_text(names_file).splitlines() if line.strip())
    content = parse_json(read_text(path), path)
    if len(names) != LABELS or not isinstance(content, dict):
        raise DataError(f"{names_file}: expected {LABELS} names, found {len(names)}; and images with numbers in {path}")
    return _Labelled(names, content, path)


def _derived(downloads: Downloads, progress: Progress) -> _Labelled:
    """The labels of most objects, and which images have them."""
    what = f"{NUMBERS[0]} is not there, and so is not {{}} to derive labels from"
    objects, aliases = (
        downloads.need(what.format(name), name, f"data/vg/{name}") for name in ("objects.json", "object_alias.txt")
    )
    alias_of: dict[str, str] = {}
    for line in read_text(aliases).splitlines():
        first, *others = (word.strip() for word in line.split(","))
        alias_of |= {word: alias_of.get(first, first) for word in (first, *others) if word and word not in alias_of}
    content = parse_json(read_text(objects), objects)
    named = progress(list(_named_objects(content, objects)), "objects of Visual Genome")
    found = {f"{image}.jpg": [alias_of.get(name, name) for name in words] for image, words in named}
    counts = Counter(name for row in found.values() for name in row)
    names = tuple(sorted(counts, key=lambda name: (-counts[name], name))[:LABELS])
    number = {name: k for k, name in enumerate(names)}
    return _Labelled(
        names,
        {image: dict.fromkeys(number[name] for name in row if name in number) for image, row in found.items()},
        objects,
    )


def _named_objects(content: Any, path: Path) -> Iterable[tuple[int, list[str]]]:
    """Id and names of the objects of each image."""
    for i, entry in enumerate(content if isinstance(content, list) else [content]):
        match entry:
            case {"image_id": int() as image, "objects": [*objects]} if all(map(_is_named, objects)):
                words = (str(word).strip().lower() for one in objects for word in one["names"])
                yield image, [word for word in words if word]
            case _:
                raise DataError(
                    f'{path}: [{i}] is {str(entry)[:80]!r}: it needs "image_id" and "objects" with their "names"'
                )


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("names"), list)


def _records(downloads: Downloads, part: str, labelled: _Labelled) -> Records:
    name = f"{part}_list_500.txt"
    path = downloads.need(f"SSGRL's list of {part} images", name, f"data/vg/{name}")
    entries = []
    for i, image in enumerate(map(str.strip, read_text(path).split("\n")), 1):
        if image and image not in labelled.numbers:
            raise DataError(f"{path}, line {i}: {labelled.source} has no labels of {image!r}")
        if image:
            entries.append(Entry(f"{path}, line {i}", f"VG_100K/{image}", _names(labelled, image)))
    return collect(entries, str(path), classes=labelled.names)


def _names(labelled: _Labelled, image: str) -> Sequence[str]:
    """The labels of an image; numbers from 200 on are of the file for 500."""
    numbers = labelled.numbers[image]
    try:
        return [labelled.names[number] for number in numbers if 0 <= number < len(labelled.names)]
    except TypeError as error:
        raise DataError(f"{labelled.source}: the labels of {image!r} are no numbers") from error
