"""Zero-shot CLIP: the row that every method has to beat. Nothing is trained."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.image import ImageTrunk
from clip.text import TextEncoder
from model.method import Method

__all__ = ["Ranking", "ZeroShotCLIP"]


class Ranking(NamedTuple):
    """What zero-shot CLIP says of a batch of images."""

    scores: Tensor  # (B, C), each row sums to 1


class ZeroShotCLIP(Method):
    """Scores by the cosine of the global image feature and the template text.

    Args:
        trunk: image tower, run without prompts.
        text: text tower, run without prompts.
        scale: CLIP's logit scale.
        input_norm: (mean, std) that images come with, on pixels in [0, 1].
        clip_norm: (mean, std) that the CLIP was trained with; images are brought to it.
    """

    title = "zero-shot CLIP"
    frozen = ("trunk", "text")
    gain: Tensor
    offset: Tensor

    def __init__(
        self, trunk: ImageTrunk, text: TextEncoder, *, scale: float,
        input_norm: tuple[Sequence[float], Sequence[float]], clip_norm: tuple[Sequence[float], Sequence[float]],
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.scale = trunk, text, scale
        (mean, std), (clip_mean, clip_std) = (
            [torch.tensor(values)[:, None, None] for values in norm] for norm in (input_norm, clip_norm)
        )
        # Back to pixels in [0, 1] and on to the CLIP's own units, in one affine step.
        self.register_buffer("gain", std / clip_std, persistent=False)
        self.register_buffer("offset", (mean - clip_mean) / clip_std, persistent=False)

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Frozen label features (C, D), normalised."""
        return F.normalize(self.text.prefix(names).plain, dim=-1)

    @torch.no_grad()
    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Ranking:  # noqa: ARG002
        """Scores of images (B, 3, H, W), normalised as the other methods get them."""
        features = self.trunk.global_features(images * self.gain + self.offset)
        return Ranking((self.scale * F.normalize(features.float(), dim=-1) @ labels.T).softmax(-1))
