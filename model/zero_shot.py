"""Zero-shot CLIP: the row that every method has to beat. Nothing is trained.

The dense scores are those that TaI-DPT's code (Guo et al., CVPR 2023, github.com/guozix/TaI-DPT) has for a CLIP without
training: with z_ij = s cos(region i, label j) and g_j = s cos(image, label j), s being CLIP's scale, 100 for OpenAI's,

    local_j = sum_i softmax_i(z_ij) z_ij, a soft maximum over the regions;  both_j = (g_j + local_j) / 2

TaI-DPT has a ResNet, where the attention pool is the only attention: its value and output projections are applied to
every position, without queries and keys, and without the pool's positional embeddings. "local" and "both" have these
neither for regions nor for the image, as CoMC's code (ICML 2024). A ViT's counterpart is its last block with each token
attending to itself alone, shortcut and MLP as they are, as in MaskCLIP (ECCV 2022) and TagCLIP (AAAI 2024).
The patches as the last block leaves them are no such thing: they mix what they attend to, and the global feature, all
that CLIP was trained on, is made from the values of the last block and not from them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.text import TextEncoder
from clip.trunk import Trunk
from model.method import Method

__all__ = ["TITLES", "Ranking", "ZeroShotCLIP", "soft_maximum"]

TITLES = {  # by what scores are made from
    "global": "zero-shot CLIP", "local": "zero-shot CLIP (local)", "both": "zero-shot CLIP (global and local)"
}  # fmt: skip


class Ranking(NamedTuple):
    """What zero-shot CLIP says of a batch of images."""

    scores: Tensor  # (B, C); global: each row sums to 1; local and both: multiples of cosines


class ZeroShotCLIP(Method):
    """Scores by the cosines of image features and the template text.

    Args:
        trunk: image tower, run without prompts.
        text: text tower, run without prompts.
        scale: CLIP's logit scale.
        input_norm: (mean, std) that images come with, on pixels in [0, 1].
        clip_norm: (mean, std) that the CLIP was trained with; images are brought to it.
        score: what of: "global", the softmax of the scaled cosines over the labels; "local", the soft maximum over the
            regions; "both", the mean of scaled cosines and soft maximum.
    """

    frozen = ("trunk", "text")
    gain: Tensor
    offset: Tensor

    def __init__(
        self, trunk: Trunk, text: TextEncoder, *, scale: float,
        input_norm: tuple[Sequence[float], Sequence[float]], clip_norm: tuple[Sequence[float], Sequence[float]],
        score: str = "global",
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.scale, self.score, self.title = trunk, text, scale, score, TITLES[score]
        (mean, std), (clip_mean, clip_std) = (
            [torch.tensor(values)[:, None, None] for values in norm] for norm in (input_norm, clip_norm)
        )
        # Back to pixels in [0, 1] and on to the CLIP's own units, in one affine step.
        self.register_buffer("gain", std / clip_std, persistent=False)
        self.register_buffer("offset", (mean - clip_mean) / clip_std, persistent=False)

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Frozen label features (C, D), normalised."""
        return F.normalize(self.text.prefix(names).plain, dim=-1)

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Ranking:  # noqa: ARG002
        """Scores of images (B, 3, H, W), normalised as the other methods get them."""
        return self.recognise(self.stem(images), labels)

    @torch.no_grad()
    def stem(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of the images (B, D), and of their regions (B, N, D) where they are asked for; not normalised."""
        pixels = images * self.gain + self.offset
        return (
            (self.trunk.global_features(pixels), None) if self.score == "global" else self.trunk.dense_features(pixels)
        )

    @torch.no_grad()
    def recognise(self, features: tuple[Tensor, Tensor | None], labels: Tensor) -> Ranking:
        """Scores of images by what `stem` gives."""
        of_image, regions = features
        if regions is None:
            return Ranking(self._logits(of_image, labels).softmax(-1))
        local = soft_maximum(self._logits(regions, labels))
        return Ranking(local if self.score == "local" else (self._logits(of_image, labels) + local) / 2)

    def _logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Scaled cosines (..., C) of features (..., D), in float32."""
        with torch.autocast(features.device.type, enabled=False):  # of 100 or so, whose differences count
            return self.scale * F.normalize(features.float(), dim=-1) @ labels.T


def soft_maximum(logits: Tensor) -> Tensor:
    """sum_i softmax_i(z_ij) z_ij of z (B, N, C): (B, C), between the mean and the maximum over i."""
    return (logits.softmax(1) * logits).sum(1)
