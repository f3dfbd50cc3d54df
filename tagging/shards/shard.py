"""What a shard is: pictures that are tagged together, and named together if they cannot be."""

from collections.abc import Iterator
from typing import Any, Protocol

from datasets.images import IMAGE_SUFFIXES
from datasets.records import DataError
from tagging.pictures import Encoded

__all__ = ["Named", "Shard", "ShardError", "names_a_picture"]

Named = tuple[str, str | Encoded | DataError]  # what a row calls a picture, and where it is or why there is none


class ShardError(DataError):
    """A shard that cannot be tagged as a whole; the message names it."""


class Shard(Protocol):
    """Some pictures that stand in a fixed order; it can be pickled."""

    @property
    def name(self) -> str:
        """That of its output, without suffix."""

    def about(self) -> dict[str, Any]:
        """What tells it from another shard of its name, as plain values.

        Raises:
            ShardError: if it is gone.
        """

    def pictures(self) -> Iterator[Named]:
        """The pictures, read as they are taken.

        Raises:
            ShardError: if it is damaged, as far as this can be known before the first picture.
        """


def names_a_picture(path: str) -> bool:
    """Whether a path ends as those of pictures do, and does not begin with a dot."""
    file = path.rpartition("/")[2]
    return not file.startswith(".") and file.lower().endswith(IMAGE_SUFFIXES)
