"""The image tower of the frozen CLIP where it is a ResNet: attention pooling, and regions without it.

With the map x_1 ... x_N of the last stage, its mean x_0 and the positional embeddings e_0 ... e_N of the pool,

    global feature   W_c attention(q: x_0 + e_0, k and v: x_i + e_i)     what CLIP was trained on
    region i         W_c (W_v (x_i + e_i) + b_v) + b_c                   what the pool makes of position i alone

The second is dense features as DualCoOp (https://github.com/sunxm2357/DualCoOp) has them, whose regions begin with
region 0, the mean. Other methods leave the positional embeddings out.

B images, N regions, W width of the last stage, D joint width.
"""

from typing import Any

import torch
from torch import Tensor

from clip.blocks import attend
from clip.image import resize_positions
from clip.regions import native_grid
from clip.trunk import DenseFeatures, FeatureMap, Trunk

__all__ = ["ResNetTrunk"]


class ResNetTrunk(Trunk):
    """A frozen ResNet of open_clip, in evaluation mode: BatchNorm has its running statistics.

    Args:
        visual: open_clip's `ModifiedResNet`.
        positions: how the positional embeddings are brought to another grid, bilinear or bicubic, the latter not
            antialiased, as in DualCoOp; None: there are none, as in TaI-DPT, CoMC and TRM-ML.
    """

    def __init__(self, visual: Any, *, positions: str | None) -> None:
        super().__init__()
        self.visual, self.positions = visual, positions

    @property
    def width(self) -> int:
        """W."""
        return self.visual.attnpool.v_proj.in_features

    @torch.no_grad()
    def global_features(self, images: Tensor) -> Tensor:
        """The CLIP's own image features (B, D), not normalised."""
        return self._image_features(self._last_stage(images))

    @torch.no_grad()
    def dense_features(self, images: Tensor) -> DenseFeatures:
        """The CLIP's own features of the images, and those of their regions."""
        tokens = self._tokens(self._last_stage(images))
        values = self.visual.attnpool.v_proj(tokens)
        return DenseFeatures(self._pooled(tokens, values), self.visual.attnpool.c_proj(values[:, 1:]))

    @torch.no_grad()
    def regions_with_mean(self, images: Tensor) -> Tensor:
        """The regions behind region 0, (B, 1 + N, D), not normalised."""
        return self.regions_of_stage(self._last_stage(images))

    @torch.no_grad()
    def feature_map(self, images: Tensor) -> FeatureMap:
        """The map of the last stage, behind its ReLU."""
        stage = self._last_stage(images)
        return FeatureMap(self._image_features(stage), stage)

    def regions_of_stage(self, stage: Tensor) -> Tensor:
        """`regions_with_mean` of a map of the last stage, (B, W, rows, columns)."""
        pool = self.visual.attnpool
        return pool.c_proj(pool.v_proj(self._tokens(stage)))

    def _last_stage(self, images: Tensor) -> Tensor:
        """(B, W, rows, columns)."""
        visual = self.visual
        x = visual.stem(images)
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        return x

    def _image_features(self, stage: Tensor) -> Tensor:
        tokens = self._tokens(stage)
        return self._pooled(tokens, self.visual.attnpool.v_proj(tokens))

    def _tokens(self, stage: Tensor) -> Tensor:
        """What the pool sees of a map, x_0 + e_0 to x_N + e_N: (B, 1 + N, W)."""
        x = stage.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        if self.positions is None:
            return x
        native, (rows, columns) = native_grid(self.visual), stage.shape[2:]
        embedding = self.visual.attnpool.positional_embedding
        return x + resize_positions(embedding, native, (rows, columns), self.positions, antialias=False)

    def _pooled(self, tokens: Tensor, values: Tensor) -> Tensor:
        """The pool's attention for x_0 alone, which is all that is read: (B, D)."""
        pool = self.visual.attnpool
        q, k, v = (
            part.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)  # (B, h, N, W / h)
            for part in (pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), values)
        )
        return pool.c_proj(attend(q, k, v))[:, 0]
