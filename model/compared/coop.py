"""CoOp: a learned context in the place of CLIP's template (Zhou et al., IJCV 2022).

    t_j = text([start, v_1, ..., v_n, name_j, ".", end]),   logit_j = s cos(cls, t_j)

Both towers and the scale s are frozen; the n vectors are all that is trained, and all labels share them, since vectors
of a label's own could not serve a label that training never saw (https://github.com/KaiyangZhou/CoOp; `clip.contexts`).

CoOp tells one class from others, by cross-entropy. With several labels in an image the loss is the configured one:
MMC-IMAGE is that cross-entropy, mean over an image's labels, and the very same where every image has one label. The
score is the softmax of the logits, as for zero-shot CLIP.

B images, C labels, D joint width.
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

__all__ = ["Classification", "CoOp"]


class Classification(NamedTuple):
    """What CoOp says of a batch of images."""

    scores: Tensor  # (B, C), each row sums to 1
    logits: Tensor  # (B, C)


class CoOp(Method):
    """Scores by the cosine of the global image feature and the name behind a learned context.

    Args:
        trunk: image tower, run without prompts.
        text: text tower.
        context: what is trained.
        scale: CLIP's logit scale.
        loss: of logits (B, C) and targets (B, C).
        loss_weight: of it.
        recipe: the rate of SGD, weight decay and momentum.
    """

    title = "CoOp"
    frozen = ("trunk", "text")
    takes_unknown = True  # no part of the loss

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, context: Context, scale: float,
        loss: Callable[[Tensor, Tensor], Tensor], loss_weight: float, recipe: Recipe,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.context = trunk, text, context
        self.scale, self.loss, self.loss_weight, self.recipe = scale, loss, loss_weight, recipe

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Features (C, D) of the names behind the context, not normalised."""
        return self.context(self.text, names)

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Classification:  # noqa: ARG002
        """Scores of images (B, 3, H, W), normalised."""
        return self.recognise(self.stem(images), labels)

    def stem(self, images: Tensor) -> Tensor:
        """The frozen tower's features (B, D), not normalised."""
        return self.trunk.global_features(images)

    def recognise(self, features: Tensor, labels: Tensor) -> Classification:
        """Scores of images by these features."""
        logits = self.logits(features, labels)
        return Classification(logits.softmax(-1), logits)

    def learn(self, stem: Tensor, labels: Tensor, targets: Tensor) -> Classification:  # noqa: ARG002
        """The same in training."""
        return self.recognise(stem, labels)

    def logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """s cos(cls, t_j), (B, C), float32, of image features (B, D) and labels (C, D), neither normalised."""
        with torch.autocast(features.device.type, enabled=False):  # cosines times 100
            cosines = F.normalize(features.float(), dim=-1) @ F.normalize(labels.float(), dim=-1).T
            return self.scale * cosines

    def losses(self, output: Classification, targets: Tensor) -> dict[str, Tensor]:
        """The configured loss."""
        return {"global": self.loss_weight * self.loss(output.logits, targets)}

    def groups(self) -> list[Group]:
        """The context, by SGD."""
        recipe = self.recipe
        return [
            Group(
                "context", list(self.context.parameters()), "sgd", recipe.lr_sgd, recipe.weight_decay_sgd,
                recipe.momentum,
            )
        ]  # fmt: skip
