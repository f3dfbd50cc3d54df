"""Which labels are seen and which unseen: named, chosen by frequency or at random, or as the files say."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from datasets.records import DataError, Records, first_few
from datasets.shuffle import shuffled
from datasets.splits import Vocabulary, most_frequent, vocabulary

__all__ = ["CHOICES", "LabelChoice", "choose", "named_vocabulary"]

CHOICES = ("files", "frequent", "random", "none")


class LabelChoice(NamedTuple):
    """Which labels are seen and unseen.

    `seen` and `unseen` are names; if only one is given, the other is all the rest. If none is, `how` decides:
    "files": the classes of the lists; "frequent": seen are the labels that most training images have; "random": drawn
    by `seed`; "none": all labels are seen. `fraction` of the labels become unseen.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    how: str
    fraction: float
    seed: int


def choose(train: Records, test: Records, test_zsl: Records | None, choice: LabelChoice) -> Vocabulary:
    """Seen and unseen labels of a training list and test lists.

    Raises:
        DataError: naming the key, if the choice cannot be made or contradicts `test_zsl`.
    """
    if choice.seen or choice.unseen:
        if test_zsl:
            raise DataError("DATASETS.TEST_ZSL names the unseen labels already: leave SEEN and UNSEEN empty")
        return named_vocabulary(choice, [train, test])
    if choice.how not in CHOICES:
        raise DataError(f"DATASETS.CHOOSE is {choice.how!r}; it has to be one of {', '.join(CHOICES)}")
    if choice.how == "files":
        return vocabulary(train, test, test_zsl)
    if test_zsl:
        raise DataError("DATASETS.TEST_ZSL names the unseen labels already: set DATASETS.CHOOSE files")
    classes = tuple(dict.fromkeys((*train.classes, *test.classes)))
    unseen = 0 if choice.how == "none" else round(choice.fraction * len(classes))
    if not 0 <= unseen < len(classes) or (choice.how != "none" and not unseen):
        raise DataError(
            f"DATASETS.UNSEEN_FRACTION {choice.fraction} makes {unseen} of {len(classes)} labels unseen: there have to "
            "be labels of both kinds (DATASETS.CHOOSE none: all are seen)"
        )
    counted = train._replace(classes=classes)
    ordered = shuffled(classes, choice.seed) if choice.how == "random" else most_frequent(counted, len(classes))
    seen = ordered[: len(classes) - unseen]
    return Vocabulary(tuple(sorted(seen)), tuple(sorted(set(classes) - set(seen))))


def named_vocabulary(choice: LabelChoice, lists: Sequence[Records]) -> Vocabulary:
    """The named labels; if only one part is named, all others of the lists are the other part.

    Raises:
        DataError: naming the key, for a label that no list has or that is in both parts, or if a part is empty.
    """
    known = {name for records in lists for name in records.classes}
    for key, names in (("SEEN", choice.seen), ("UNSEEN", choice.unseen)):
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {first_few(known)}"
                raise DataError(f"DATASETS.{key}: {lists[0].source} has no label {name!r}; {hint}")
    seen, unseen = set(choice.seen), set(choice.unseen)
    if both := seen & unseen:
        raise DataError(f"{first_few(both)} in DATASETS.SEEN and in DATASETS.UNSEEN: seen or unseen?")
    seen, unseen = seen or known - unseen, unseen or known - seen
    if not seen or not unseen:
        raise DataError(
            f"DATASETS.{'UNSEEN' if unseen else 'SEEN'}: every label is named, so none is left for the rest"
        )
    return Vocabulary(tuple(sorted(seen)), tuple(sorted(unseen)))
