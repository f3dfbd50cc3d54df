"""DualCoOp as the authors of TRM-ML modified it for partial labels, the baseline of their ablation (ACM MM 2024).

    w_ij    = softmax_i(k cos(region_i, t+_j))                    shares of the regions; gradients flow through them
    logit_j = s sum_i w_ij (cos(region_i, t+_j) - cos(region_i, t-_j)),   p_j = sigmoid(logit_j)

k and s are learned, from e^3 and e^3.91. Each label has a positive and a negative context of its own, so all labels
have to be seen, and there is no region for the whole image. The loss is ASL, summed over the labels that are known,
mean over the images. MODEL.DUALCOOP.POOLING average leaves out the shares, w_ij = 1 / N: "omitting the attention
module", the first row of that paper's Table 3.

The formulas are those of the authors' fork of DualCoOp, as numbers that it computed have them; the paper prints none.
Deviation: the paper's towers are ResNets, of a ViT the regions are as for `model.compared.dual_coop`, without CLS.

B images, N regions, C labels, D joint width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.contexts import Context
from clip.text import TextEncoder
from clip.trunk import Trunk
from model.compared.dual_coop import LabelPair
from model.fixed_labels import FixedLabelsMethod
from model.method import Group
from parallel import summed

__all__ = ["PartialDualCoOp", "Pooled"]


class Pooled(NamedTuple):
    """What it says of a batch of images."""

    scores: Tensor  # (B, C), logits, each label by itself


class PartialDualCoOp(FixedLabelsMethod):
    """Scores by what regions say for a label and against it, with contexts of each label's own.

    Args:
        trunk: image tower.
        text: text tower.
        labels: all that will be asked for, all of them seen.
        positive: contexts of the labels, trained.
        negative: likewise.
        sharpness: k at the beginning, trained; None: regions are averaged.
        scale: s at the beginning, trained.
        loss: of logits (B, C) and targets (B, C), -1 where a label is not known; a sum over both.
        loss_weight: of its mean over the images.
        lr: of AdamW.
        weight_decay: of all that is trained.
    """

    title = "DualCoOp (modified)"
    frozen = ("trunk", "text")
    takes_unknown = True

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, labels: Sequence[str], positive: Context, negative: Context,
        sharpness: float | None, scale: float, loss: Callable[[Tensor, Tensor], Tensor], loss_weight: float,
        lr: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__(labels)
        self.trunk, self.text, self.positive, self.negative = trunk, text, positive, negative
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.log_sharpness = None if sharpness is None else nn.Parameter(torch.tensor(sharpness).log())
        self.loss, self.loss_weight, self.lr, self.weight_decay = loss, loss_weight, lr, weight_decay

    def encode_labels(self, names: Sequence[str]) -> LabelPair:
        """The names behind both of their contexts."""
        rows = self.rows(names)
        return LabelPair(*(context(self.text, self.labels, rows) for context in (self.positive, self.negative)))

    def forward(self, images: Tensor, labels: LabelPair, targets: Tensor | None = None) -> Pooled:  # noqa: ARG002
        """Scores of images (B, 3, H, W), normalised."""
        return self.recognise(self.stem(images), labels)

    def stem(self, images: Tensor) -> Tensor:
        """Regions (B, N, D) of the frozen tower, not normalised."""
        return self.trunk.dense_features(images).regions

    def recognise(self, features: Tensor, labels: LabelPair) -> Pooled:
        """Scores of images by their regions."""
        return Pooled(self.logits(features, labels))

    def learn(self, stem: Tensor, labels: LabelPair, targets: Tensor) -> Pooled:  # noqa: ARG002
        """The same in training."""
        return self.recognise(stem, labels)

    def logits(self, regions: Tensor, labels: LabelPair) -> Tensor:
        """The logits (B, C), float32, of regions (B, N, D) of any norm."""
        with torch.autocast(regions.device.type, enabled=False):  # cosines times 50
            regions = F.normalize(regions.float(), dim=-1)
            positive, negative = (regions @ F.normalize(text.float(), dim=-1).T for text in labels[:2])  # (B, N, C)
            contrast = positive - negative
            if self.log_sharpness is None:
                return self.log_scale.exp() * contrast.mean(1)
            weights = (self.log_sharpness.exp() * positive).softmax(1)
            return self.log_scale.exp() * (weights * contrast).sum(1)

    def losses(self, output: Pooled, targets: Tensor) -> dict[str, Tensor]:
        """ASL, mean over the images."""
        images = summed(output.scores.new_tensor(len(targets)))
        return {"asl": self.loss_weight * self.loss(output.scores, targets) / images}

    def groups(self) -> list[Group]:
        """Contexts and both factors, alike."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [Group("trained", trained, "adamw", self.lr, self.weight_decay)]

    def diagnostics(self, output: Pooled) -> dict[str, Tensor]:  # noqa: ARG002
        """The factors."""
        factors = {"scale": self.log_scale, "sharpness": self.log_sharpness}
        return {name: value.detach().exp() for name, value in factors.items() if value is not None}
