"""PA100K with 16 seen and 10 unseen pedestrian attributes (paper, Section 5.1), from `annotation.mat`.

Liu et al. 2017, "HydraPlus-Net". The authors' test list is the official one with the official labels.
"""

from pathlib import Path
from typing import Any

from datasets.benchmarks import matlab
from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.released import comparison, differing, find_released
from datasets.records import DataError, Entry, Records, collect, first_few
from datasets.splits import most_frequent

__all__ = ["CLASSES", "OFFICIAL", "SEEN", "prepare"]

SEEN = 16  # the most frequent ones
OFFICIAL = {  # names in annotation.mat, in its order -> those of the release
    "Female": "Female", "AgeOver60": "AgeOver60", "Age18-60": "Age18-60", "AgeLess18": "AgeLess18",
    "Front": "Front", "Side": "Side", "Back": "Back", "Hat": "Hat", "Glasses": "Glasses", "HandBag": "Hand Bag",
    "ShoulderBag": "Shoulder Bag", "Backpack": "Backpack", "HoldObjectsInFront": "HoldObjectsInFront",
    "ShortSleeve": "Short Sleeve", "LongSleeve": "Long Sleeve", "UpperStride": "Upper Stride",
    "UpperLogo": "Upper Logo", "UpperPlaid": "Upper Plaid", "UpperSplice": "Upper Splice",
    "LowerStripe": "Lower Stripe", "LowerPattern": "Lower Pattern", "LongCoat": "Long Coat", "Trousers": "Trousers",
    "Shorts": "Shorts", "Skirt&Dress": "Skirt and Dress", "boots": "boots",
}  # fmt: skip
CLASSES = tuple(OFFICIAL.values())

ANNOTATION = tuple(f"{folder}annotation.mat" for folder in ("", "PA-100K/", "PA100K/", "annotation/"))
IMAGE_FOLDERS = tuple(
    f"{parent}{folder}"
    for folder in ("release_data/release_data", "data", "release_data")
    for parent in ("", "PA-100K/", "PA100K/")
)
PARTS = ("train", "val", "test")


def prepare(
    downloads: Downloads,
    *,
    seed: int,  # noqa: ARG001 - as every benchmark; nothing is drawn here
    progress: Progress = plain,
) -> Lists:
    """The lists of PA100K 16/10.

    Seen labels are the 16 that most of the 80,000 training images have. Paths are as
    `release_data/release_data/000001.jpg`, or in the folder of images that is there.

    Args:
        downloads: with `annotation.mat` in the root, in `PA-100K`, `PA100K` or `annotation`. Lists of the authors
            are taken as they are; with both, the file is needed for the validation images only.
        seed: not used.
        progress: shows the progress.

    Raises:
        MissingFileError: if a file is needed and not there.
        DataError: if a file is not what its name says.
    """
    given = find_released(downloads, "PA100K", CLASSES, SEEN)
    both = given.train is not None and given.test is not None
    path = downloads.find(*ANNOTATION) if both else downloads.need("the annotation of PA100K", *ANNOTATION)
    official = {} if path is None else _read(path, _image_folder(downloads.root), progress)
    train = official["train"] if given.train is None else given.train
    test = official["test"] if given.test is None else given.test
    seen = set(given.seen or most_frequent(train, SEEN))
    notes = [*given.notes, *(note for records in official.values() for note in records.notes)]
    if official:
        pairs = ((given.train, official["train"]), (given.test, official["test"]))
        notes += [comparison(records, part) for records, part in pairs if records is not None]
    origin = {
        "benchmark": "pa100k",
        "rule": f"the {SEEN} labels that most training images have are seen; training images have a seen label and no "
        f"unseen one; the test images are those of {'annotation.mat' if given.test is None else 'the authors'}",
        "seed": None,
        "exact": not (official and given.test and differing(given.test, official["test"])),
        "sources": downloads.checksums(),
    }
    return open_vocabulary(
        train,
        test,
        [name for name in CLASSES if name in seen],
        [name for name in CLASSES if name not in seen],
        val=official.get("val"),
        origin=origin,
        released=given.final,
        notes=notes,
    )


def _image_folder(root: Path) -> str:
    return next((folder for folder in IMAGE_FOLDERS if (root / folder).is_dir()), IMAGE_FOLDERS[0])


def _read(path: Path, folder: str, progress: Progress) -> dict[str, Records]:
    """The three official parts."""
    names = [f"{part}_{kind}" for part in PARTS for kind in ("images_name", "label")]
    variables = matlab.load(path, "attributes", *names)
    attributes = matlab.texts(variables["attributes"], f"{path}: attributes")
    if len(attributes) != len(OFFICIAL) or set(attributes) != set(OFFICIAL):
        wrong = set(attributes) ^ set(OFFICIAL) or {name for name in attributes if attributes.count(name) > 1}
        raise DataError(f"{path}: its attributes are not the {len(OFFICIAL)} of PA100K: {first_few(wrong)}")
    return {part: _part(path, part, variables, attributes, folder) for part in progress(PARTS, "annotation of PA100K")}


def _part(path: Path, part: str, variables: dict[str, Any], attributes: tuple[str, ...], folder: str) -> Records:
    where = f"{path}: {part}_label"
    images = matlab.texts(variables[f"{part}_images_name"], f"{path}: {part}_images_name")
    labels = [OFFICIAL[name] for name in attributes]
    rows = matlab.label_rows(variables[f"{part}_label"], labels, where=where, positive=(1,), negative=(0,))
    if len(rows) != len(images):
        raise DataError(f"{where} has {len(rows):,} rows, {part}_images_name {len(images):,} names")
    ordered = (sorted(row, key=CLASSES.index) for row in rows)
    entries = [Entry(f"{where}, row {i}", f"{folder}/{images[i - 1]}", row) for i, row in enumerate(ordered, 1)]
    return collect(entries, str(path), classes=CLASSES)
