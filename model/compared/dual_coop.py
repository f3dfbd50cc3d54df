"""DualCoOp: a positive and a negative learned context, and pooling over regions (Sun et al., NeurIPS 2022).

    z+-_ij  = k cos(region_i, t+-_j),        t+-_j the name behind the positive, the negative context
    w_ij    = softmax_i(z+_ij)                shares of the regions, for both; gradients flow through them
    logit+- = s sum_i w_ij z+-_ij
    p_j     = softmax over the pair = sigmoid(logit+_j - logit-_j), the score

k = 20 and s = 5 in the release (https://github.com/sunxm2357/DualCoOp), which leaves CLIP's own scale of 100 unused.
The loss is ASL of p, summed over images and labels that are known, times a weight; with very many labels it is that of
some of them, drawn anew in every step. Contexts are shared by all labels, as where some are unseen.

Regions of a ResNet are the release's: its attention pooling at the end is undone, the pool's value and output
projections are applied at every position of the last map, without attention, and the mean position stands in front.

Deviation, regions of a ViT: it pools in its last block. Undone likewise, every patch attends to itself alone there,
W_o v_i + b_o in place of attention; residual and MLP stay, as the final projection expects their sum (so does TagCLIP,
Lin et al., AAAI 2024). The CLS feature, what a ViT pools to, stands in front in place of the mean. RAM's Table 7 has
DualCoOp on a ViT without saying how. Contexts of each label's own are left out.

B images, N regions, C labels, L of them in a step, D joint width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.contexts import Context
from clip.text import TextEncoder
from clip.trunk import Trunk
from model.method import Group, Method, Recipe

__all__ = ["DualCoOp", "LabelPair", "Presence"]


class LabelPair(NamedTuple):
    """Labels behind both contexts."""

    positive: Tensor  # (L, D), not normalised
    negative: Tensor  # (L, D), not normalised
    columns: Tensor | None = None  # (L,), int64, which of the C labels they are; None: all, L = C


class Presence(NamedTuple):
    """What DualCoOp says of a batch of images."""

    scores: Tensor  # (B, L), in [0, 1], each by itself
    positive: Tensor  # (B, L), logits
    negative: Tensor  # (B, L)
    columns: Tensor | None  # of the labels


class DualCoOp(Method):
    """Scores by what regions say for a label and against it.

    Args:
        trunk: image tower.
        text: text tower.
        positive: context, trained.
        negative: context, trained.
        sharpness: k.
        scale: s.
        labels_per_step: of a training step, drawn at random; 0: all.
        loss: of logits (B, L) and targets (B, L), -1 where a label is not known.
        loss_weight: of it.
        recipe: the rate of SGD, weight decay and momentum.
    """

    title = "DualCoOp"
    frozen = ("trunk", "text")
    takes_unknown = True

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, positive: Context, negative: Context, sharpness: float,
        scale: float, labels_per_step: int, loss: Callable[[Tensor, Tensor], Tensor], loss_weight: float,
        recipe: Recipe,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.positive, self.negative = trunk, text, positive, negative
        self.sharpness, self.scale, self.labels_per_step = sharpness, scale, labels_per_step
        self.loss, self.loss_weight, self.recipe = loss, loss_weight, recipe

    def encode_labels(self, names: Sequence[str]) -> LabelPair:
        """The names behind both contexts; in training those of this step, in evaluation all."""
        columns = None
        if self.training and 0 < self.labels_per_step < len(names):
            columns = torch.randperm(len(names))[: self.labels_per_step].to(self.positive.vectors.device)
        return LabelPair(self.positive(self.text, names, columns), self.negative(self.text, names, columns), columns)

    def forward(self, images: Tensor, labels: LabelPair, targets: Tensor | None = None) -> Presence:  # noqa: ARG002
        """Scores of images (B, 3, H, W), normalised."""
        return self.recognise(self.stem(images), labels)

    def recognise(self, features: Tensor, labels: LabelPair) -> Presence:
        """Scores of images by their regions (B, 1 + N, D)."""
        positive, negative = self.logits(features, labels)
        return Presence((positive - negative).sigmoid(), positive, negative, labels.columns)

    def learn(self, stem: Tensor, labels: LabelPair, targets: Tensor) -> Presence:  # noqa: ARG002
        """The same in training."""
        return self.recognise(stem, labels)

    def stem(self, images: Tensor) -> Tensor:
        """Dense features (B, 1 + N, D) of the frozen tower, not normalised, the mean first, or a ViT's CLS."""
        return self.trunk.regions_with_mean(images)

    def logits(self, regions: Tensor, labels: LabelPair) -> tuple[Tensor, Tensor]:
        """Positive and negative logits, (B, L) each, float32, of regions (B, 1 + N, D), not normalised."""
        with torch.autocast(regions.device.type, enabled=False):  # cosines times 100
            regions = self.sharpness * F.normalize(regions.float(), dim=-1)
            positive, negative = (regions @ F.normalize(text.float(), dim=-1).T for text in labels[:2])  # (B, 1 + N, L)
            weights = positive.softmax(1)
            return self.scale * (weights * positive).sum(1), self.scale * (weights * negative).sum(1)

    def losses(self, output: Presence, targets: Tensor) -> dict[str, Tensor]:
        """ASL of the labels of this step."""
        asked = targets if output.columns is None else targets[:, output.columns]
        return {"asl": self.loss_weight * self.loss(output.positive - output.negative, asked)}

    def groups(self) -> list[Group]:
        """Both contexts, by SGD."""
        contexts, recipe = [*self.positive.parameters(), *self.negative.parameters()], self.recipe
        return [Group("contexts", contexts, "sgd", recipe.lr_sgd, recipe.weight_decay_sgd, recipe.momentum)]
