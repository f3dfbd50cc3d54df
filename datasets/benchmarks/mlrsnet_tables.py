"""The label tables of MLRSNet (Qi et al. 2020), a CSV for each of 46 categories, with what is wrong with them.

In seven files the columns are in another order than in the rest, and one has a blank where `snowberg` should be: each
is read by its own header. Read by position, as for the authors' test list, every image of those seven has wrong labels.
Since May 2021 the files on GitHub have uniform headers but corrupted values.
"""

from collections.abc import Mapping
from pathlib import Path

from datasets.benchmarks import binary_csv
from datasets.benchmarks.downloads import Downloads, Progress
from datasets.records import DataError, Entry, Records, collect, first_few

__all__ = ["CATEGORIES", "CLASSES", "find_tables", "need_tables"]

CLASSES = (
    "airplane", "airport", "bare soil", "baseball diamond", "basketball court", "beach", "bridge", "buildings", "cars",
    "chaparral", "cloud", "containers", "crosswalk", "dense residential area", "desert", "dock", "factory", "field",
    "football field", "forest", "freeway", "golf course", "grass", "greenhouse", "gully", "habor", "intersection",
    "island", "lake", "mobile home", "mountain", "overpass", "park", "parking lot", "parkway", "pavement", "railway",
    "railway station", "river", "road", "roundabout", "runway", "sand", "sea", "ships", "snow", "snowberg",
    "sparse residential area", "stadium", "swimming pool", "tanks", "tennis court", "terrace", "track", "trail",
    "transmission tower", "trees", "water", "wetland", "wind turbine",
)  # fmt: skip
CATEGORIES = (
    "airplane", "airport", "bareland", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral", "cloud",
    "commercial_area", "dense_residential_area", "desert", "eroded_farmland", "farmland", "forest", "freeway",
    "golf_course", "ground_track_field", "harbor_port", "industrial_area", "intersection", "island", "lake", "meadow",
    "mobile_home_park", "mountain", "overpass", "park", "parking_lot", "parkway", "railway", "railway_station",
    "river", "roundabout", "shipping_yard", "snowberg", "sparse_residential_area", "stadium", "storage_tank",
    "swimmimg_pool", "tennis_court", "terrace", "transmission_tower", "vegetable_greenhouse", "wetland",
    "wind_turbine",
)  # fmt: skip
SPELLINGS = {"harbor_port": "harbor&port", "swimmimg_pool": "swimming_pool"}  # of files and folders
FOLDERS = ("Labels", "labels", "MLRSNet/Labels", "MLRSNet/labels")
IMAGE_FOLDERS = ("Images", "images", "MLRSNet/Images", "MLRSNet/images")

SNOWBERG = CLASSES.index("snowberg")  # the column whose name storage_tank.csv lacks
MOST_LABELS = 13  # of an image in the intact files
DEFINING = {"storage_tank": "tanks", "stadium": "stadium"}  # labels that all their images have
CORRUPTED = (
    "this is the corrupted version that is on GitHub since commit 54457eb (May 2021): take the files of Mendeley Data "
    "(7j9bv9vwsx, version 3) or of commit cd5ca1c"
)


def find_tables(downloads: Downloads, *, positional: bool, progress: Progress) -> Records | None:
    """As `need_tables`, or None if there is no folder of tables."""
    return (
        None if downloads.find(*FOLDERS) is None else need_tables(downloads, positional=positional, progress=progress)
    )


def need_tables(downloads: Downloads, *, positional: bool, progress: Progress) -> Records:
    """All images, category by category in alphabetical order.

    Args:
        downloads: with a CSV for each category in `Labels` or `labels`.
        positional: read the columns in alphabetical order whatever the header says, which is the mistake of the
            authors' list.
        progress: shows the progress.

    Raises:
        MissingFileError: if there is no folder, or a category is missing.
        DataError: naming file and line, if a header is not that of the 60 labels, a value is not 0 or 1, or the files
            are the corrupted ones.
    """
    folder = downloads.need("the folder of label tables", *FOLDERS)
    below = folder.relative_to(downloads.root).as_posix()
    files = {
        category: downloads.need(f"the label table of {category}", *(f"{below}/{s}.csv" for s in _spellings(category)))
        for category in CATEGORIES
    }
    entries: list[Entry] = []
    for category, path in progress(list(files.items()), "label tables of MLRSNet"):
        entries += _category(path, category, _image_folder(downloads.root, category), positional)
    unread = {path.name for path in folder.glob("*.csv")} - {path.name for path in files.values()}
    notes = [f"{len(unread):,} files in {folder} belong to no category and are left out: {first_few(unread)}"]
    return collect(entries, str(folder), classes=CLASSES, notes=notes if unread else ())


def _spellings(category: str) -> tuple[str, ...]:
    return (category, SPELLINGS[category]) if category in SPELLINGS else (category,)


def _image_folder(root: Path, category: str) -> str:
    """Of a category, relative to the root; `Images/category` if there is none."""
    candidates = [f"{folder}/{name}" for folder in IMAGE_FOLDERS for name in _spellings(category)]
    return next((folder for folder in candidates if (root / folder).is_dir()), candidates[0])


def _category(path: Path, category: str, folder: str, positional: bool) -> list[Entry]:
    table = binary_csv.read(path)
    columns = _by_position(table) if positional else _by_name(table)
    entries = list(binary_csv.entries(table, columns, lambda name: f"{folder}/{name}"))
    for entry in entries:
        if len(entry.labels) > MOST_LABELS:
            raise DataError(
                f"{entry.where}: {entry.image!r} has {len(entry.labels)} labels, and no image of MLRSNet more than "
                f"{MOST_LABELS}: {CORRUPTED}"
            )
    label = DEFINING.get(category)
    if label is not None and not any(label in entry.labels for entry in entries):
        raise DataError(f"{path}: none of {len(entries):,} images has the label {label!r}: {CORRUPTED}")
    return entries


def _by_position(table: binary_csv.Table) -> Mapping[str, int]:
    _check_width(table)
    return {label: column for column, label in enumerate(CLASSES, 1)}


def _by_name(table: binary_csv.Table) -> Mapping[str, int]:
    """The columns by their names, where a blank at the place of `snowberg` is that."""
    _check_width(table)
    names = list(table.header)
    if not names[1 + SNOWBERG] and "snowberg" not in names:
        names[1 + SNOWBERG] = "snowberg"
    return binary_csv.columns_by_name(table._replace(header=tuple(names)), dict(zip(CLASSES, CLASSES, strict=True)))


def _check_width(table: binary_csv.Table) -> None:
    if len(table.header) != 1 + len(CLASSES):
        raise DataError(
            f"{table.path}, line 1: {len(table.header)} columns, expected 'image' and {len(CLASSES)} labels"
        )
