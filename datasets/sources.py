"""An annotation file as a configuration wants it: labels that are not known, synonyms and missing images settled."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from datasets.annotations import read_records
from datasets.images import present
from datasets.records import DataError, MissingFileError, Records, first_few
from datasets.spelling import with_synonyms
from datasets.thinning import thinned

__all__ = ["Reading", "below", "require_folder"]


class Reading(NamedTuple):
    """How every list of a data set is read.

    Attributes:
        root: what relative paths of lists are relative to.
        images: folder of the images.
        separator: between the labels of a cell or line; see `formats.table`.
        empty_cell: what an empty cell in a column of a label says: absent or unknown.
        unknown: labels that are not known of an image: keep, or absent.
        known: share of the labels that training is told, see `datasets.thinning`.
        known_seed: of what is drawn for it.
        skip_missing: leave out images that are not there.
        synonyms: other spelling to label.
    """

    root: str
    images: str
    separator: str
    empty_cell: str
    unknown: str
    known: float
    known_seed: int
    skip_missing: bool
    synonyms: Mapping[str, str]

    def read(self, source: str) -> Records | None:
        """The records of a file, folder or split; None for "".

        Raises:
            MissingFileError: if there is no such file or folder.
            DataError: as `read_records`.
        """
        return self._settled(self._listed(source)) if source else None

    def read_training(self, source: str, *, optional: bool) -> Records | None:
        """As `read` and thinned, but that there is no list is an error, unless `optional`."""
        try:
            if not source:
                raise MissingFileError("DATASETS.TRAIN is empty: set it to an annotation file or folder (docs/data.md)")
            return self._settled(thinned(self._listed(source), self.known, self.known_seed))
        except MissingFileError:
            if optional:
                return None
            raise

    def _listed(self, source: str) -> Records:
        """The records as they stand in the file."""
        return read_records(
            source, self.root, separator=self.separator, empty_is_unknown=self.empty_cell == "unknown"
        )  # fmt: skip

    def _settled(self, records: Records) -> Records:
        """The records without what the configuration leaves no question of."""
        if records.unknown and self.unknown == "absent":
            count = sum(map(len, records.unknown))
            note = f"{count:,} labels that are not known count as absent (DATASETS.UNKNOWN)"
            records = records._replace(unknown=(), notes=(*records.notes, note))
        return with_synonyms(self._with_images(records), self.synonyms)

    def _with_images(self, records: Records) -> Records:
        """The records whose image is there, if the others may be left out."""
        if not self.skip_missing:
            return records
        there = records.rows(present(records.images, self.images))
        missing = set(records.images) - set(there.images)
        note = f"images that are not there are left out: {len(missing):,} ({first_few(missing)})"
        return there._replace(notes=(*there.notes, note)) if missing else records


def require_folder(folder: str, key: str, what: str) -> str:
    """The folder.

    Raises:
        DataError: naming the key, if it is not there.
    """
    if not os.path.isdir(folder):
        raise DataError(f"there is no folder {folder!r}: set DATASETS.{key} to the folder of the {what}")
    return folder


def below(root: str, name: str) -> str:
    """A path in `root`; "~" in either is the user's home."""
    folder = os.path.expanduser(root)
    return os.path.join(folder, os.path.expanduser(name)) if name else folder
