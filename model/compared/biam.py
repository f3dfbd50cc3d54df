"""BiAM: bi-level attention between regions and between channels (Narayan et al., ICCV 2021, arXiv 2108.09301).

With the map x of an image and its global vector x_g, over c channels:

    h    = BN(ReLU(Conv3x3(x)))
    r    = h + drop(Conv1x1(attention of h over regions)),   e_r = r + Conv1x1(ReLU(Conv1x1(r)))        regions
    u    = LReLU(Conv1x1(h)),   s = sigmoid(mean_regions(u) * (W_g drop(x_g) + b_g)) * u                scene
    e_g  = s + BN(ReLU(Conv3x3(s)))
    e    = LReLU(Conv1x1([e_r; e_g])),   w_j = W t_j + b,   score_j = mean of the k highest <e_i, w_j> over regions i

trained by the normalised ranking loss alone; images without a present label are taken out of the batch before anything
is computed. `BiAMHead` is the official code's, checked on numbers that it computed.

What differs is what the head sees. Officially x is the last convolution's output of an ImageNet VGG-19 (512 channels),
x_g its second fully connected layer's (4096) and t_j a GloVe vector of length 1. Here they are patches of the frozen
CLIP behind its last LayerNorm, or the last map of its ResNet, its global feature in the joint space, and the feature of
the label's text, of length 1. How the official weights are drawn is not known; here as torch draws them.

B images, C labels, N regions, F channels of the map, G width of the global vector, T width of the label vectors,
c channels, H heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.text import TextEncoder
from clip.trunk import FeatureMap, Trunk
from loss.ranking_loss import normalised_ranking_loss, rankable
from model.method import Group, Method
from parallel import BatchNorm2d

__all__ = ["BiAM", "BiAMHead", "Ranked"]

SLOPE = 0.2  # of the leaky ReLUs
DROPOUT, DROPOUT_GLOBAL = 0.1, 0.2  # of the region block, and of the global vector
EMBEDDING = 512  # width in which regions and labels meet


class ConvNorm(nn.Module):
    """BN(ReLU(Conv3x3(x))): (B, inputs, rows, columns) to (B, outputs, rows, columns); BatchNorm *behind* the ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        # Running statistics are almost those of the last batch: 0.99 is the weight of the new one.
        self.bn = BatchNorm2d(outputs, eps=1e-3, momentum=0.99)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu())


class RegionBlock(nn.Module):
    """e_r: every region attends to all of them, (B, c, rows, columns) to the same shape. No normalisation layers."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        self.mlp1, self.mlp2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, h: Tensor) -> Tensor:
        # Heads are consecutive chunks of channels: (B, H, N, c / H).
        q, k, v = (
            part(h).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for part in (self.q, self.k, self.v)
        )
        dropout = DROPOUT if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        mixed = mixed.transpose(2, 3).flatten(1, 2).unflatten(2, h.shape[2:])  # (B, c, rows, columns)
        r = h + F.dropout(self.o(mixed), dropout)
        return r + self.mlp2(self.mlp1(r).relu())


class SceneBlock(nn.Module):
    """e_g: channels gated by the whole image, (B, c, rows, columns) to the same shape."""

    def __init__(self, channels: int, global_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.gate = nn.Linear(global_width, channels)
        self.residual = ConvNorm(channels, channels)

    def forward(self, h: Tensor, global_vector: Tensor) -> Tensor:
        u = F.leaky_relu(self.conv(h), SLOPE)
        wanted = self.gate(F.dropout(global_vector, DROPOUT_GLOBAL, self.training))  # (B, c)
        gate = (u.mean((2, 3)) * wanted).sigmoid()
        s = gate[:, :, None, None] * u
        return s + self.residual(s)


class BiAMHead(nn.Module):
    """Maps, global vectors and label vectors to scores.

    Args:
        map_width: F.
        global_width: G.
        label_width: T.
        channels: c, a multiple of `heads`.
        heads: H, of the attention between regions.
        top_k: regions that a score is the mean of.
    """

    def __init__(
        self, *, map_width: int, global_width: int, label_width: int, channels: int, heads: int, top_k: int
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.hidden = ConvNorm(map_width, channels)
        self.region, self.scene = RegionBlock(channels, heads), SceneBlock(channels, global_width)
        self.fuse = nn.Conv2d(2 * channels, EMBEDDING, 1)
        self.label = nn.Linear(label_width, EMBEDDING)

    def forward(self, maps: Tensor, global_vectors: Tensor, labels: Tensor) -> Tensor:
        """Scores (B, C), not bounded.

        Args:
            maps: (B, F, rows, columns), with `top_k` regions or more.
            global_vectors: (B, G).
            labels: (C, T), used as they are.
        """
        h = self.hidden(maps)
        both = torch.cat([self.region(h), self.scene(h, global_vectors)], 1)
        regions = F.leaky_relu(self.fuse(both), SLOPE).flatten(2).transpose(1, 2)  # (B, N, 512)
        classifiers = self.label(labels)  # (C, 512)
        with torch.autocast(maps.device.type, enabled=False):  # products are not scaled
            products = regions.float() @ classifiers.float().T  # (B, N, C)
            return products.topk(self.top_k, dim=1).values.mean(1)


class Ranked(NamedTuple):
    """What BiAM says of a batch."""

    scores: Tensor  # (B, C); in training of the images that are `kept`
    kept: Tensor | None  # (B,), bool: images of the batch that the loss is taken of, where targets were given


class BiAM(Method):
    """BiAM's head on the frozen CLIP.

    Args:
        trunk: image tower.
        text: text tower, run without prompts.
        head: the trained part.
        lr: highest learning rate.
        weight_decay: of Adam, added to the gradients.
    """

    title = "BiAM"
    frozen = ("trunk", "text")
    takes_unknown = True

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, head: BiAMHead, lr: float, weight_decay: float
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.head = trunk, text, head
        self.lr, self.weight_decay = lr, weight_decay

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Frozen label features (C, D), normalised."""
        return F.normalize(self.text.prefix(names).plain, dim=-1)

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Ranked:
        """Scores of images (B, 3, H, W); with targets, of those that have a present label."""
        kept = None if targets is None else rankable(targets)
        return self.recognise(self.stem(images if kept is None else images[kept]), labels)._replace(kept=kept)

    def stem(self, images: Tensor) -> FeatureMap:
        """The frozen tower's last map, and its global feature."""
        return self.trunk.feature_map(images)

    def recognise(self, features: FeatureMap, labels: Tensor) -> Ranked:
        """Scores of images by what `stem` gives."""
        return Ranked(self.head(features.map, features.image, labels), None)

    def learn(self, stem: FeatureMap, labels: Tensor, targets: Tensor) -> Ranked:
        """Scores of the images that have a present label."""
        kept = rankable(targets)
        return self.recognise(FeatureMap(*(part[kept] for part in stem)), labels)._replace(kept=kept)

    def losses(self, output: Ranked, targets: Tensor) -> dict[str, Tensor]:
        """The normalised ranking loss."""
        return {
            "ranking": normalised_ranking_loss(output.scores, targets if output.kept is None else targets[output.kept])
        }

    def groups(self) -> list[Group]:
        """The head, by Adam."""
        return [Group("head", list(self.head.parameters()), "adam", self.lr, self.weight_decay)]
