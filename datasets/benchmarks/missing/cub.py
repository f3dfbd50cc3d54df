"""CUB-200-2011 with single positives: the 312 attributes of birds, https://www.vision.caltech.edu/datasets/cub_200_2011/.

    CUB_200_2011/images.txt                         1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg
    CUB_200_2011/train_test_split.txt               1 0
    CUB_200_2011/attributes/image_attribute_labels.txt    1 5 1 3 27.7080     image, attribute, present, certainty, time
    attributes.txt                                  5 has_bill_shape::hooked_seabird

Labels are the phrases of SCPNet's `cub_labels.txt` where that is there ("hooked seabird bill"), else the attributes.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datasets.benchmarks.downloads import Downloads, Progress
from datasets.benchmarks.missing import indices
from datasets.benchmarks.missing.sources import Sources
from datasets.formats.text import read_text
from datasets.records import DataError, Entry, Records, collect
from files import open_regular

__all__ = ["largeloss", "splc"]

LABELS = 312
TOP = "CUB_200_2011/"


def largeloss(downloads: Downloads, progress: Progress) -> Sources:
    """The official training and test images in the order of `images.txt`, 5,994 and 5,794."""
    train, test = _official(downloads, _names(downloads), progress)
    return Sources(train, test)


def splc(downloads: Downloads, progress: Progress) -> Sources:
    """The images and labels of SCPNet's list; test images are the official ones."""
    names = _names(downloads)
    _, test = _official(downloads, names, progress)
    return Sources(indices.read(indices.need_list(downloads, "cub_train.txt"), names, f"{_folder(downloads)}/"), test)


def _names(downloads: Downloads) -> tuple[str, ...]:
    """The labels in the order of their ids."""
    phrases = indices.find_names(downloads, "cub_labels.txt", LABELS)
    if phrases is not None:
        return phrases
    path = _need(downloads, "attributes.txt", "attributes.txt", "attributes/attributes.txt")
    names = [name for _, name in _rows(path)]
    if len(names) != LABELS:
        raise DataError(f"{path}: expected {LABELS} attributes, found {len(names)}")
    return tuple(name.removeprefix("has_").replace("::", ": ").replace("_", " ") for name in names)


def _official(downloads: Downloads, names: Sequence[str], progress: Progress) -> tuple[Records, Records]:
    """The training and the test images in the order of `images.txt`."""
    path = _need(downloads, "images.txt", "images.txt")
    images, split_path = dict(_rows(path)), _need(downloads, "train_test_split.txt", "train_test_split.txt")
    split = dict(_rows(split_path))
    labels, folder = _labels(downloads, images, names, progress), _folder(downloads)
    parts: dict[str, list[Entry]] = {"1": [], "0": []}  # whether an image is for training
    for number, image in images.items():
        part = split.get(number, "")
        if part not in parts:
            raise DataError(f"{split_path}: image {number} has no 0 or 1")
        parts[part].append(Entry(f"{path}: image {number}", f"{folder}/{image}", labels[number]))
    train, test = (collect(entries, str(path), classes=names) for entries in parts.values())
    return train, test


def _labels(
    downloads: Downloads, images: Iterable[str], names: Sequence[str], progress: Progress
) -> dict[str, list[str]]:  # fmt: skip
    """The attributes that are present in each image, by its number."""
    path = _need(downloads, "image_attribute_labels.txt", "attributes/image_attribute_labels.txt")
    labels: dict[str, list[str]] = {number: [] for number in images}
    with open_regular(path) as file:
        for i, line in enumerate(progress(filter(bytes.strip, file), "attributes of CUB"), 1):
            cells = line.decode("ascii", "replace").split()[:3]  # what follows differs in number
            image, attribute, is_present = cells if len(cells) == 3 else ("", "", "")
            known = image in labels and attribute.isdigit() and 1 <= int(attribute) <= len(names)
            if not known or is_present not in ("0", "1"):
                raise DataError(f"{path}, line {i}: expected an image, an attribute and 0 or 1, found {line[:60]!r}")
            if is_present == "1":
                labels[image].append(names[int(attribute) - 1])
    return labels


def _need(downloads: Downloads, what: str, *names: str) -> Path:
    return downloads.need(f"{what} of CUB-200-2011", *(folder + name for name in names for folder in (TOP, "")))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Number and text of each line."""
    for i, line in enumerate(read_text(path).split("\n"), 1):
        cells = line.split(maxsplit=1)
        if cells and (len(cells) != 2 or not cells[0].isdigit()):
            raise DataError(f"{path}, line {i}: {line[:80]!r} is not a number and a text")
        if cells:
            yield cells[0], cells[1].strip()


def _folder(downloads: Downloads) -> str:
    return f"{TOP}images" if (downloads.root / TOP / "images").is_dir() else "images"
