"""The whole loss of TRM-ML, Eq. (15), from what a training step gives.

B images, C labels, D joint width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from model.trm.losses import classification_loss, contrastive_loss, distillation_loss
from model.trm.prototypes import Seen

__all__ = ["Learned", "Objective", "Weights"]


class Weights(NamedTuple):
    """Of the losses, and what shapes them."""

    regions: float  # alpha
    distillation: float  # beta; 0: none
    contrast: float  # gamma; 0: none
    distillation_temperature: float
    distillation_reduction: str  # over the images: mean or sum
    contrast_temperature: float


class Learned(NamedTuple):
    """What losses are made of, beside the logits of the regions."""

    query_logits: Tensor  # (B, C), z^q
    targets: Tensor  # (B, C), known and pseudo-labels: 1, 0 or -1
    unknown: Tensor  # (B, C), bool, where the given targets are -1
    pseudo: Tensor  # (B, C), 1, 0 or -1, of which the unknown ones count
    anchors: Tensor  # (C, D), texts of length 1
    candidates: Seen  # for the contrast with them; each process has some


class Objective(nn.Module):
    """L = L_cls(z^q) + alpha L_cls(z^r) + beta KL(z^r || z^q) + gamma InfoNCE(h(g+), h(f^r)), Eq. (15).

    h is a perceptron of two layers, shared by texts and regions (Section 3.5), and what it gives is normalised; the
    paper says neither. Without the contrastive loss there is none.

    Args:
        width: D.
        loss: ASL of logits (B, C) and targets (B, C), summed over images and labels.
        weights: of the losses.
    """

    def __init__(self, *, width: int, loss: Callable[[Tensor, Tensor], Tensor], weights: Weights) -> None:
        super().__init__()
        self.loss, self.weights = loss, weights
        self.projection = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) if weights.contrast else None
        )

    def forward(self, region_logits: Tensor, learned: Learned) -> dict[str, Tensor]:
        """The terms, already weighted."""
        weights, query_logits, targets = self.weights, learned.query_logits, learned.targets
        losses = {
            "queries": classification_loss(query_logits, targets, summed_loss=self.loss),
            "regions": weights.regions * classification_loss(region_logits, targets, summed_loss=self.loss),
        }
        if weights.distillation:
            losses["distillation"] = weights.distillation * distillation_loss(
                query_logits, region_logits, temperature=weights.distillation_temperature,
                reduction=weights.distillation_reduction,
            )  # fmt: skip
        if self.projection is not None:
            vectors, labels = learned.candidates
            anchors, candidates = (F.normalize(self.projection(x), dim=-1) for x in (learned.anchors, vectors))
            losses["contrast"] = weights.contrast * contrastive_loss(
                anchors, candidates, labels, temperature=weights.contrast_temperature
            )
        return losses
