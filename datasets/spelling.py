"""One spelling for each label: synonyms that the user names, and labels that differ in case only."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from datasets.records import DataError, Records, alike, first_few

__all__ = ["OneCase", "with_one_case", "with_synonyms"]


def with_synonyms(records: Records, synonyms: Mapping[str, str]) -> Records:
    """The records with every synonym replaced by its label; a note counts them."""
    return _renamed(records, synonyms, "{:,} mentions of synonyms count as their label")


class OneCase(NamedTuple):
    """Lists with one spelling for labels that differ in case only."""

    lists: list[Records | None]
    names: dict[str, str]  # other spelling to label


def with_one_case(lists: Sequence[Records | None], *, merge: bool, preferred: Collection[str] = ()) -> OneCase:
    """The lists with one spelling for labels that differ in case only, such as dog and Dog.

    It is the one that is among `preferred`, else that of most images of all lists, else the first in ASCII order.

    Args:
        lists: of one data set; None stays None.
        merge: False: such labels are an error.
        preferred: labels that a model was trained on.

    Raises:
        DataError: naming two such labels and the key, if they are not merged.
    """
    counts: Counter[str] = Counter()
    for records in lists:
        if records is not None:
            counts.update(dict.fromkeys(records.classes, 0))
            counts.update(label for row in records.labels for label in row)
    groups: dict[str, list[str]] = {}
    for label in sorted(counts):
        groups.setdefault(label.casefold(), []).append(label)
    for label in preferred:
        if label not in counts and label.casefold() in groups:
            groups[label.casefold()].append(label)
    twins = [group for group in groups.values() if len(group) > 1]
    if twins and not merge:
        raise DataError(
            f"labels that differ in case only: {first_few(twins[0])}; write them alike, or set DATASETS.MERGE_CASE True"
        )
    best = [min(group, key=lambda label: (label not in preferred, -counts[label], label)) for group in twins]
    one = {label: kept for group, kept in zip(twins, best, strict=True) for label in group if label != kept}
    note = "{:,} mentions of labels in another case count as one label (DATASETS.MERGE_CASE)"
    return OneCase([None if records is None else _renamed(records, one, note) for records in lists], one)


def _renamed(records: Records, names: Mapping[str, str], note: str) -> Records:
    """The records with other names of labels; a label that an image has under two names is kept once."""
    if names.keys().isdisjoint(records.classes):
        return records

    rename = alike(lambda labels: tuple(dict.fromkeys(names.get(label, label) for label in labels)))

    count = sum(label in names for row in records.labels for label in row)
    labels = tuple(map(rename, records.labels))
    unknown = tuple(
        tuple(label for label in rename(row) if label not in present)
        for row, present in zip(records.unknown, labels, strict=False)  # nothing where all is known
    )
    hidden, notes = tuple(map(rename, records.hidden)), (*records.notes, note.format(count))
    return records._replace(
        labels=labels, unknown=unknown, hidden=hidden, classes=rename(records.classes), notes=notes
    )  # fmt: skip
