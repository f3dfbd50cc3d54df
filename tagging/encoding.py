"""Names of labels to what is asked of images: each label by itself, whichever others it is encoded with."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tagging.evidence import Asked, RegionEvidence
from tagging.portable import TaggerError

__all__ = ["LabelEncoder", "checked_names"]

TOGETHER = 16  # labels that are encoded at once


class LabelEncoder:
    """Encodes labels; threads may share one.

    Args:
        tower: the method's `TextEncoder`, which knows the texts of labels.
        evidence: what makes `Asked` of names.
    """

    def __init__(self, tower: Any, evidence: RegionEvidence) -> None:
        self._tower, self._evidence = tower, evidence
        self.lock = threading.Lock()  # of the text tower, which keeps what it computed last

    def __call__(self, names: Sequence[str], texts: Mapping[str, str]) -> Asked:
        """The labels, in their order.

        Args:
            names: C of them, as `checked_names` lets pass.
            texts: what to encode in place of the template filled with a name.

        Raises:
            clip.load.TextError: if one is longer than CLIP's context.
        """
        parts, order = [], []
        with self.lock, self._spelt(names, texts) as keys:
            for places in self._alike(keys):
                # A label runs in a batch of one shape, whichever others are asked for: else rounding would differ.
                filled = [*places, *places[-1:] * (TOGETHER - len(places))]
                part = self._evidence.labels([keys[k] for k in filled])
                parts.append((part.text[: len(places)], part.anchor[: len(places)]))
                order += places
        text, anchor = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        back = torch.tensor(order, device=text.device).argsort()
        return Asked(tuple(names), text[back], anchor[back])

    def _alike(self, names: Sequence[str]) -> Iterator[list[int]]:
        """Positions of labels whose texts have the same number of tokens, a few at a time."""
        by_length: dict[int, list[int]] = {}
        ends = self._evidence.tokens(names).argmax(-1)  # end-of-text has the largest id
        for place, length in enumerate(ends.tolist()):
            by_length.setdefault(length, []).append(place)
        for places in by_length.values():
            yield from (places[k : k + TOGETHER] for k in range(0, len(places), TOGETHER))

    @contextmanager
    def _spelt(self, names: Sequence[str], texts: Mapping[str, str]) -> Iterator[list[str]]:
        """What the text tower knows the names by, where some have a text of their own here."""
        own = self._tower.texts
        before = dict(own)
        keys = [f"\0{texts[name]}" if texts.get(name, before.get(name)) != before.get(name) else name for name in names]
        try:
            own.update({key: key[1:] for key in keys if key.startswith("\0")})
            yield keys
        finally:
            own.clear()
            own.update(before)


def checked_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of labels.

    Raises:
        TaggerError: if there are none, one is listed twice or is blank.
    """
    if isinstance(names, str):
        raise TaggerError(f"labels are a list of names, not the text {names!r}")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise TaggerError(f"{name!r} is not the name of a label (number {place + 1})")
    if not names:
        raise TaggerError("no labels: name at least one")
    if len(set(names)) < len(names):
        first: set[str] = set()
        twice = next(name for name in names if name in first or first.add(name))  # type: ignore[func-returns-value]
        raise TaggerError(f"the label {twice!r} is asked for twice")
    return tuple(names)
