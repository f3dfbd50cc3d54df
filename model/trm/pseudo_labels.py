"""What becomes of labels that are not known: thresholds that move along, and pseudo-labels (TRM-ML, Eq. (9)-(12)).

s is how alike the region of a label is to the label's prototypes, visual or of text (`model.trm.prototypes`).

    s^p, s^n       mean of s over a batch's images that are known to have the label, and not to have it        Eq. (9)
    theta_positive <- eta theta_positive + (1 - eta) s^p,   theta_negative likewise by s^n                    Eq. (11)
    y = 1 where s >= theta_positive, 0 where s <= theta_negative, else not known                              Eq. (10)
    a pseudo-label is what visual and text prototypes agree on                                                Eq. (12)

What is printed cannot all be meant. Eq. (9) multiplies s by y, which is -1 where a label is absent, and by -1 again.
Eq. (10) wants s >= theta_positive and s <= theta_negative for a present label, which no s fulfils where the thresholds
are in order, and calls absent what lies between them: the clearest cases would stay unknown. Eq. (11) has
theta_positive on the left of both lines, so that theta_negative would never move. The text around them describes the
reading above. It says nothing of a label whose thresholds are not in order, theta_positive <= theta_negative, as they
are at first where little is known: all of its unknown entries would be judged, about half of them wrongly. Such a label
is left out here, and so is one without thresholds, or whose queue of visual prototypes is not full.

B images, C labels. Labels are 1 (present), 0 (absent) and -1 (not known) here, +1, -1 and 0 in the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parallel import summed

__all__ = ["UNKNOWN", "Thresholds", "agreed", "completed"]

UNKNOWN = -1


class Thresholds(nn.Module):
    """theta_positive and theta_negative of each label; undefined before the first image that is known to say.

    Args:
        labels: C.
        momentum: eta, weight of the past.
    """

    values: Tensor
    defined: Tensor

    def __init__(self, *, labels: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(2, labels))  # of absent labels, of present ones
        self.register_buffer("defined", torch.zeros(2, labels, dtype=torch.bool))

    @property
    def ordered(self) -> Tensor:
        """Which labels can be judged: (C,), bool, where theta_positive is above theta_negative."""
        return self.defined.all(0) & (self.values[1] > self.values[0])

    def judge(self, similarity: Tensor) -> Tensor:
        """Eq. (10): 1, 0 or -1 by the thresholds as they stand, (B, C), int64.

        Args:
            similarity: (B, C), s.
        """
        absent, present = (similarity <= self.values[0]) & self.ordered, (similarity >= self.values[1]) & self.ordered
        return torch.where(present, 1, torch.where(absent, 0, UNKNOWN))

    @torch.no_grad()
    def update(self, similarity: Tensor, targets: Tensor, usable: Tensor) -> None:
        """Eq. (9) and (11), over the batch of all processes; thresholds that no image says anything of stay.

        Args:
            similarity: (B, C), s.
            targets: (B, C), 1, 0 or -1.
            usable: (C,), bool, labels whose s means something.
        """
        says = torch.stack([targets == value for value in (0, 1)]).to(similarity.dtype)  # (2, B, C)
        sums, counts = summed(torch.stack([(says * similarity).sum(1), says.sum(1)]))  # (2, C) each
        means, observed = sums / counts.clamp(min=1), (counts > 0) & usable
        moved = torch.where(self.defined, self.momentum * self.values + (1 - self.momentum) * means, means)
        self.values.copy_(torch.where(observed, moved, self.values))
        self.defined |= observed


def agreed(verdicts: Sequence[Tensor]) -> Tensor:
    """Eq. (12): what all verdicts (B, C) say, -1 where they differ."""
    first, *others = verdicts
    same = torch.stack([first == other for other in others]).all(0) if others else torch.ones_like(first).bool()
    return torch.where(same, first, UNKNOWN)


def completed(targets: Tensor, pseudo: Tensor, judged: Tensor, *, unknown: str) -> Tensor:
    """The targets of Eq. (14): (B, C), 1, 0 or -1; known labels stay what they are.

    The paper does not say what becomes of absent labels where no image names any (single positive labels). Left out,
    only present ones would be learned; `absent` takes unknown labels for absent until their class is judged.

    Args:
        targets: (B, C), 1, 0 or -1.
        pseudo: (B, C), labels to put in the place of -1, or -1.
        judged: (C,), bool, labels that pseudo-labels are made for.
        unknown: what else becomes of -1: ignored; absent, until its label is judged; always-absent.
    """
    otherwise = {
        "ignored": pseudo,
        "absent": torch.where(judged, pseudo, 0),
        "always-absent": (pseudo == 1).to(pseudo.dtype),
    }[unknown]
    return torch.where(targets == UNKNOWN, otherwise.to(targets.dtype), targets)
