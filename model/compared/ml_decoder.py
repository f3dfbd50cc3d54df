"""ML-Decoder: labels ask the regions of an image, each for itself (Ridnik et al., WACV 2023), in its zero-shot mode.

Every label is a query of one layer of cross-attention. Queries do not see each other and one weight vector turns all of
them into logits, so labels may be exchanged at any time. With features f (N, F) of an image and vectors t (C, V) of
labels,

    M = ReLU(f W_f + b_f)                      memory (N, W)
    q = ReLU(t W_t + b_t)                      queries (C, W)
    x = LN1(q + drop(q))                       which is LN1(2 q) in evaluation
    x = LN2(x + drop(attention(x, M, M)))      8 heads, also dropout on the attention's weights
    x = LN3(x + drop(W_2 drop(ReLU(W_1 x))))   2048 hidden units
    logit = x w + b                            (C,)

Source: the paper, and what its code computes (https://github.com/Alibaba-MIIL/ML_Decoder), to which a test compares it.

Deviations, all of them due to the shared base:

* The image tower is the frozen CLIP (official: TResNet-L, trained along). f are a ResNet's last map, or what stands for
  it in a ViT: its patch tokens behind the last block and the final normalisation, in the tower's own width F (768 in a
  ViT-B/16). Unnormalised tokens are what no part of CLIP reads; and a projection to the joint space would be undone
  or made by W_f, which has the same freedom and more without it.
* t are CLIP's frozen text features, V = D, in place of word vectors, and like these not normalised.
* Augmentation (official: cutout and RandAugment), image size and batch size are the benchmark's.
* The last epoch is tested, and its average; official: the best of all epochs by the mAP of the unseen labels.

B images, N regions, C labels, D joint width, W width of the decoder.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.text import TextEncoder
from clip.trunk import Trunk
from model.method import Group, Method

__all__ = ["Answers", "LabelDecoder", "MLDecoder"]


class Answers(NamedTuple):
    """What ML-Decoder says of a batch of images."""

    scores: Tensor  # (B, C), float32, in (0, 1); each label for itself
    logits: Tensor  # (B, C)


class LabelDecoder(nn.Module):
    """One decoder layer from the features of an image and the vectors of labels to a logit for each label.

    Args:
        feature_width: F, of the features.
        label_width: V, of the labels' vectors.
        width: W, a multiple of `heads`.
        heads: of the attention.
        hidden: units between the two maps behind it.
        dropout: probability.
    """

    def __init__(
        self, *, feature_width: int, label_width: int, width: int, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.feature_projection, self.label_projection = nn.Linear(feature_width, width), nn.Linear(label_width, width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.head = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C) from features (B, N, F) and labels (C, V)."""
        memory = F.relu(self.feature_projection(features))  # (B, N, W)
        queries = F.relu(self.label_projection(labels)).expand(len(features), -1, -1)  # (B, C, W)
        x = self.norm1(queries + self.dropout(queries))
        attended, _ = self.attention(x, memory, memory, need_weights=False)
        x = self.norm2(x + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(x)))
        x = self.norm3(x + self.dropout(self.linear2(hidden)))
        return self.head(x).squeeze(-1)


class MLDecoder(Method):
    """ML-Decoder on the frozen CLIP.

    Args:
        trunk: image tower, run without prompts.
        text: text tower, run without prompts.
        decoder: the head, all that is trained.
        loss: of logits (B, C) and targets (B, C).
        loss_weight: factor of the loss.
        lr: of Adam.
        weight_decay: of matrices, within the gradient; vectors have none.
    """

    title = "ML-Decoder"
    frozen = ("trunk", "text")
    takes_unknown = True  # such labels are no part of the loss

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, decoder: LabelDecoder,
        loss: Callable[[Tensor, Tensor], Tensor], loss_weight: float, lr: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.decoder = trunk, text, decoder
        self.loss, self.loss_weight, self.lr, self.weight_decay = loss, loss_weight, lr, weight_decay

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Frozen label features (C, D), not normalised."""
        return self.text.prefix(names).plain

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Answers:  # noqa: ARG002
        """Which of the labels (C, D) are present in images (B, 3, H, W), normalised as the CLIP wants them."""
        return self.recognise(self.stem(images), labels)

    @torch.no_grad()
    def stem(self, images: Tensor) -> Tensor:
        """Regions (B, N, F) of the frozen tower's last map."""
        return self.trunk.feature_map(images).map.flatten(2).transpose(1, 2)

    def recognise(self, features: Tensor, labels: Tensor) -> Answers:
        """Which of the labels are present in images by their regions."""
        logits = self.decoder(features, labels)
        return Answers(logits.float().sigmoid(), logits)  # in half precision many scores would be equal

    def learn(self, stem: Tensor, labels: Tensor, targets: Tensor) -> Answers:  # noqa: ARG002
        """The same in training."""
        return self.recognise(stem, labels)

    def losses(self, output: Answers, targets: Tensor) -> dict[str, Tensor]:
        """The loss over images that have one of the labels; the others are left out, as in the official lists.

        Nothing in the decoder looks at other images, so it is the same as if they had not been in the batch. Without
        any image left the loss is 0.
        """
        kept = (targets == 1).any(1)
        return {"asl": self.loss_weight * self.loss(output.logits[kept], targets[kept])}  # (B', C); host-device sync

    def groups(self) -> list[Group]:
        """Adam for all, with weight decay on what has two dimensions or more."""
        parameters = list(self.decoder.parameters())
        matrices, vectors = ([p for p in parameters if (p.ndim > 1) == many] for many in (True, False))
        return [
            Group("matrices", matrices, "adam", self.lr, self.weight_decay),
            Group("vectors", vectors, "adam", self.lr, 0.0),
        ]
