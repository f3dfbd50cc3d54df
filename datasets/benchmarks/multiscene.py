"""MultiScene with 20 seen and 16 unseen labels of aerial scenes (paper, Section 5.1), from its CSV files.

Hua et al. 2021, "MultiScene: A Large-Scale Dataset and Benchmark for Multiscene Recognition in Single Aerial Images".
People checked the labels of the 14,000 images of MultiScene-Clean; those of the training images of MultiScene come
from OpenStreetMap. Which 16 labels the paper drew as unseen is not public.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datasets.benchmarks import binary_csv
from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.released import Released, comparison, file_name, find_released
from datasets.records import DataError, Records, collect, first_few
from datasets.shuffle import shuffled

__all__ = ["CLASSES", "OFFICIAL", "SEED", "UNSEEN", "prepare"]

UNSEEN = 16
SEED = 117
OFFICIAL = {  # names in the header of the CSV files, in its order -> those of the release
    "Apron": "Apron", "BaseballField": "Baseball Field", "BasketballField": "Basketball Field", "Beach": "Beach",
    "Bridge": "Bridge", "Cemetery": "Cemetery", "Commercial": "Commercial", "Farmland": "Farmland",
    "Woodland": "Woodland", "GolfCourse": "Golf Course", "Greenhouse": "Greenhouse", "Helipad": "Helipad",
    "LakePond": "Lake Pond", "OilFiled": "Oil Field", "Orchard": "Orchard", "ParkingLot": "Parking Lot",
    "Park": "Park", "Pier": "Pier", "Port": "Port", "Quarry": "Quarry", "Railway": "Railway",
    "Residential": "Residential", "River": "River", "Roundabout": "Roundabout", "Runway": "Runway",
    "Soccer": "Soccer", "SolarPannel": "Solar Pannel", "SparseShrub": "Sparse Shrub", "Stadium": "Stadium",
    "StorageTank": "Storage Tank", "TennisCourt": "Tennis Court", "TrainStation": "Train Station",
    "WastewaterPlant": "Wastewater Plant", "WindTrubine": "Wind Trubine", "Works": "Works", "Sea": "Sea",
}  # fmt: skip
CLASSES = tuple(OFFICIAL.values())

TRAIN_LABELS = ("auto", "noisy", "clean")
FOLDERS = {"noisy": ("MultiScene", "data/MultiScene"), "clean": ("MultiScene-Clean", "data/MultiScene-Clean")}
CLEAN_NOTE = (
    "the training images are the 7,000 of MultiScene-Clean; the 24 K of the paper can only be of the noisy set, "
    "MultiScene/Tra.csv"
)


class Training(NamedTuple):
    """The training images, `kind` of their labels, and the CSV they are from, if they are from one."""

    records: Records
    kind: str
    path: Path | None
    notes: tuple[str, ...]


def prepare(downloads: Downloads, *, seed: int, train_labels: str = "auto", progress: Progress = plain) -> Lists:
    """The lists of MultiScene 20/16.

    Unseen labels are the first 16 of all labels in the order of `shuffled` by the seed, our choice, unless a training
    list of the authors is of 20 labels only. `SEED` is the first by which as large a part of the clean training images
    has no unseen label as of the noisy ones in the paper, 24 K of 93 K. All test images stay in the test list, as
    in theirs. Paths are as `MultiScene-Clean/images/img_1.jpg`.

    Args:
        downloads: with `Tra.csv` and `Test.csv` in `MultiScene` and `MultiScene-Clean`, or these in `data`. The
            authors' test list is taken as it is; their training list is that of the clean images.
        seed: of the choice of unseen labels.
        train_labels: "noisy": of `MultiScene/Tra.csv`; "clean": of MultiScene-Clean, by the authors' list if that is
            there; "auto": the noisy ones if they are there.
        progress: shows the progress.

    Raises:
        ValueError: if there is no such choice.
        MissingFileError: if a file is needed and not there.
        DataError: naming the line, if a file is not what its name says; if an image is one of training and test.
    """
    if train_labels not in TRAIN_LABELS:
        raise ValueError(f"{train_labels!r} is none of {', '.join(TRAIN_LABELS)}")
    given = find_released(downloads, "MultiScene", CLASSES, len(CLASSES) - UNSEEN)
    training = _training(downloads, given, train_labels, progress)
    test, test_notes = _test(downloads, given, progress)
    _check_disjoint(training.records, test)
    if training.path is not None and training.path.with_name("Test.csv").is_file():
        _check_disjoint(training.records, _read(downloads, training.path.with_name("Test.csv"), progress))
    drawn = shuffled(CLASSES, seed)[:UNSEEN]
    unseen = drawn if given.seen is None else [name for name in CLASSES if name not in given.seen]
    final = {"test": test}
    if training.records is given.train:
        final = {**given.final, **final}
    return open_vocabulary(
        training.records,
        test,
        [name for name in CLASSES if name not in unseen],
        [name for name in CLASSES if name in unseen],
        origin=_origin(downloads, given, training.kind, seed),
        released=final,
        notes=[*given.notes, *training.notes, *test_notes, *_same_names(training.records, test)],
    )


def _origin(downloads: Downloads, given: Released, kind: str, seed: int) -> dict[str, Any]:
    drawn = given.seen is None
    split = f"the {UNSEEN} unseen labels are drawn by the seed, since the paper's are not public" if drawn else (
        "the seen labels are those of the authors' training list"
    )  # fmt: skip
    return {
        "benchmark": "multiscene",
        "rule": f"{split}; training images have a seen label and no unseen one; the test images are "
        f"{'those of Test.csv' if given.test is None else 'those of the authors'}",
        "train_labels": kind,
        "seed": seed if drawn else None,
        "exact": given.test is not None and not drawn,
        "sources": downloads.checksums(),
    }


def _places(name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for kind in kinds for folder in FOLDERS[kind])


def _training(downloads: Downloads, given: Released, choice: str, progress: Progress) -> Training:
    """The training images with labels of the chosen kind."""
    noisy = None
    if choice == "noisy":
        noisy = downloads.need("the noisy training set", *_places("Tra.csv", ["noisy"]))
    elif choice == "auto" and given.seen is None:
        noisy = downloads.find(*_places("Tra.csv", ["noisy"]))
    if noisy is not None:
        records = _read(downloads, noisy, progress)
        notes = [f"{given.train.source} is left out: the training images are those of {noisy}"] if given.train else []
        return Training(records, "noisy", noisy, (*records.notes, *notes))
    if given.train is not None:
        clean = given.seen is None
        return Training(given.train, "clean" if clean else "released", None, (CLEAN_NOTE,) if clean else ())
    kinds = ("noisy", "clean") if choice == "auto" else ("clean",)
    path = downloads.need("the training set", *_places("Tra.csv", kinds))
    records = _read(downloads, path, progress)
    return Training(records, "clean", path, (*records.notes, CLEAN_NOTE))


def _test(downloads: Downloads, given: Released, progress: Progress) -> tuple[Records, tuple[str, ...]]:
    """The test images, and what to note of them."""
    places = _places("Test.csv", ("clean", "noisy"))
    if given.test is None:
        records = _read(downloads, downloads.need("the test set", *places), progress)
        return records, records.notes
    clean = downloads.find(*_places("Test.csv", ("clean",)))
    if clean is None:
        return given.test, ()
    return given.test, (comparison(given.test, _read(downloads, clean, progress)),)


def _read(downloads: Downloads, path: Path, progress: Progress) -> Records:
    """The images of a CSV, which are in the folder `images` beside it."""
    table = binary_csv.read(path)
    columns = binary_csv.columns_by_name(table, OFFICIAL)
    folder = (path.parent.relative_to(downloads.root) / "images").as_posix()

    def path_of(name: str) -> str:
        return f"{folder}/{name if PurePosixPath(name).suffix else f'{name}.jpg'}"

    unread = [name or f"number {k + 1}" for k, name in enumerate(table.header) if k and k not in columns.values()]
    notes = [f"{path}: columns that are not read: {len(unread):,} ({first_few(unread)})"] if unread else []
    entries = progress(binary_csv.entries(table, columns, path_of), f"{path.parent.name}/{path.name}")
    return collect(entries, str(path), classes=CLASSES, notes=notes)


def _place(image: str) -> tuple[str, ...]:
    """Folder of the set, `images` and file name."""
    return PurePosixPath(image.replace("\\", "/")).parts[-3:]


def _check_disjoint(train: Records, test: Records) -> None:
    places = set(map(_place, test.images))
    both = [image for image in train.images if _place(image) in places]
    if both:
        raise DataError(f"{len(both):,} images of {train.source} are test images of {test.source}: {first_few(both)}")


def _same_names(train: Records, test: Records) -> list[str]:
    names = set(map(file_name, test.images))
    same = sum(file_name(image) in names for image in train.images)
    if not same:
        return []
    return [f"{same:,} training images have the file name of a test image in another folder: the same scene or not?"]
