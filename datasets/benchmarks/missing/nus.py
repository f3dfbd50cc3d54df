"""NUS-WIDE's 81 concepts with single positives, on images that were downloaded again.

Neither protocol can be made from the official tables: their images are ROLE's, of which it published arrays
(`formatted_{train,val}_{images,labels}.npy`, https://zenodo.org/records/10162606), and SPLC's (`nus_*.txt`). What the
columns of the arrays and the numbers in the lists stand for is not said with them: the concepts in the order of
`Concepts81.txt`, which is alphabetical, or of SCPNet's `nus_labels.txt` if that is there.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.benchmarks import nus_role
from datasets.benchmarks.downloads import Downloads, Progress
from datasets.benchmarks.missing import indices
from datasets.benchmarks.missing.sources import Sources
from datasets.benchmarks.nus_tables import CONCEPTS, need_concepts
from datasets.records import DataError, Entry, Records, collect

__all__ = ["largeloss", "load_table", "splc"]


def largeloss(downloads: Downloads, progress: Progress) -> Sources:
    """ROLE's images and labels in the order of its arrays, 150,000 and 60,260."""
    names = _names(downloads)
    train, test = (_from_arrays(downloads, key, names) for key in progress(("train", "val"), "arrays of ROLE"))
    return Sources(train, test)


def splc(downloads: Downloads, progress: Progress) -> Sources:
    """The images and labels of SPLC's lists, 119,103 and 50,720."""
    names = _names(downloads)
    files = ("nus_train_singlelabel.txt", "nus_val.txt")
    train, test = (
        indices.read(indices.need_list(downloads, name), names, "images/") for name in progress(files, "lists of SPLC")
    )
    return Sources(train, test)


def _names(downloads: Downloads) -> tuple[str, ...]:
    return indices.find_names(downloads, "nus_labels.txt", CONCEPTS) or need_concepts(downloads)


def _from_arrays(downloads: Downloads, key: str, names: Sequence[str]) -> Records:
    images, labels = (
        downloads.need(f"ROLE's array of {what}", name := f"formatted_{key}_{what}.npy", f"role/{name}")
        for what in ("images", "labels")
    )
    files, table = nus_role.load_names(images), load_table(labels, len(names))
    if len(files) != len(table):
        raise DataError(f"{labels} has {len(table):,} rows, {images.name} {len(files):,} names")
    entries = (
        Entry(f"{images}: [{i}]", name.replace("\\", "/"), [names[c] for c in np.flatnonzero(row).tolist()])
        for i, (name, row) in enumerate(zip(files, table, strict=True))
    )
    return collect(entries, str(images), classes=names)


def load_table(path: Path, columns: int) -> np.ndarray:
    """An array of 0 and 1 with so many columns.

    Raises:
        DataError: if the file holds something else.
    """
    table = nus_role.load_array(path, "0 and 1")
    if table.ndim != 2 or table.shape[1] != columns or not np.isin(table, (0, 1)).all():
        raise DataError(f"{path}: expected 0 and 1 in {columns} columns, found {table.dtype} of shape {table.shape}")
    return table
