"""What a data set gives to a protocol of missing labels."""

from typing import NamedTuple

from datasets.records import Records

__all__ = ["Sources"]


class Sources(NamedTuple):
    """Images with all labels that the files give, in the order of the protocol, and so the classes.

    `exact` is whether images and labels are those that the protocol was published with, as far as is known.
    """

    train: Records
    test: Records
    notes: tuple[str, ...] = ()
    exact: bool = True
