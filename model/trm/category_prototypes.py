"""Multimodal category prototypes (MMCP): unknown labels estimated by what is known of a label (TRM-ML, Section 3.4).

B images, N positions, C labels, D joint width.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.trm.prototypes import MemoryBank, likeness, most_energetic
from model.trm.pseudo_labels import UNKNOWN, Thresholds, agreed

__all__ = ["KINDS", "CategoryPrototypes", "Judgement", "undecided"]

KINDS = ("visual", "text")


class Judgement(NamedTuple):
    """Pseudo-labels."""

    labels: Tensor  # (B, C), int64: 1, 0, or -1 for none
    judged: Tensor  # (C,), bool, which labels they are made for


class CategoryPrototypes(nn.Module):
    """Prototypes and thresholds of every label, of which all but the text prototypes move with every training step.

    Text prototypes are the texts of a first stage, which stand still from its end on (`fix_texts`). Until then the
    texts of the step take their place, so that thresholds know by then what similarities are like.

    Args:
        labels: C.
        width: D.
        length: of the queue of each label.
        count: positions of an image that enter the queue of each label that it has.
        momentum: of the thresholds.
        kinds: of prototypes that have to agree on a pseudo-label, of `KINDS`.
    """

    texts: Tensor
    texts_fixed: Tensor

    def __init__(
        self, *, labels: int, width: int, length: int, count: int, momentum: float, kinds: Sequence[str]
    ) -> None:
        super().__init__()
        self.count, self.kinds = count, tuple(kinds)
        self.bank = MemoryBank(labels=labels, length=length, width=width)
        self.thresholds = nn.ModuleDict({kind: Thresholds(labels=labels, momentum=momentum) for kind in KINDS})
        self.register_buffer("texts", torch.zeros(labels, width))
        self.register_buffer("texts_fixed", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fix_texts(self, texts: Tensor) -> None:
        """From now on the text prototypes are these features (C, D), of any norm."""
        self.texts.copy_(F.normalize(texts.float(), dim=-1))
        self.texts_fixed.fill_(True)

    @torch.no_grad()
    def alike(self, regions: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """Eq. (8) by kind of prototype, (B, C), of regions (B, C, D) and the texts (C, D) of the step."""
        prototype = torch.where(self.texts_fixed, self.texts, F.normalize(texts.float(), dim=-1))
        return {"visual": likeness(regions, self.bank.means()), "text": likeness(regions, prototype)}

    @torch.no_grad()
    def judge(self, alike: Mapping[str, Tensor]) -> Judgement:
        """Eq. (10) and (12), by the thresholds as they stand."""
        verdicts = [self._of(kind).judge(alike[kind]) for kind in self.kinds]
        return Judgement(agreed(verdicts), self.ordered)

    @torch.no_grad()
    def learn(self, alike: Mapping[str, Tensor], targets: Tensor) -> None:
        """Eq. (11): thresholds move by what is known, targets (B, C) of 1, 0 and -1."""
        full = self.bank.full
        for kind, usable in (("visual", full), ("text", torch.ones_like(full))):
            self._of(kind).update(alike[kind], targets, usable)

    @torch.no_grad()
    def remember(self, energies: Tensor, features: Tensor, targets: Tensor) -> None:
        """Eq. (7): what is seen of labels that images are known to have enters their queues."""
        self.bank.push(most_energetic(energies, features, targets == 1, count=self.count))

    @property
    def ordered(self) -> Tensor:
        """Which labels can be judged: (C,), bool."""
        return torch.stack([self._of(kind).ordered for kind in self.kinds or KINDS]).all(0)

    def _of(self, kind: str) -> Thresholds:
        thresholds = self.thresholds[kind]
        assert isinstance(thresholds, Thresholds)
        return thresholds


def undecided(targets: Tensor) -> Judgement:
    """No pseudo-label for any of targets (B, C)."""
    return Judgement(torch.full_like(targets, UNKNOWN, dtype=torch.int64), targets.new_zeros(targets.shape[1]).bool())
