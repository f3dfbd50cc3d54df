"""The image tower of the frozen CLIP, with the self-aware attention that recovers local features.

One trunk serves student and teacher: the teacher is the trunk without prompts. Below the first adapted
block the two are the same computation and run once, in `stem`.

B images, N regions (patches), W trunk width, D joint width, P prompts, L adapted blocks.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.blocks import project_qkv, run_block, self_aware_attention

__all__ = ["ImageTrunk", "TrunkFeatures", "TrunkState", "resize_positions"]


class TrunkState(NamedTuple):
    """Where student and teacher part: in front of the first adapted block."""

    x: Tensor  # (B, 1 + N, W), main stream, CLS first
    saa: Tensor  # (B, N, W), local stream so far
    grid: tuple[int, int]  # rows and columns of regions


class TrunkFeatures(NamedTuple):
    """What the ladder is built from."""

    cls: Tensor  # (B, D), the global feature, not normalised
    saa: Tensor  # (B, N, W), local stream: patch embeddings plus the SAA of every SAA block
    taps: dict[int, Tensor]  # block -> (B, N, W), patches after each adapted block
    grid: tuple[int, int]


class ImageTrunk(nn.Module):
    """A frozen ViT of open_clip: features of images with and without visual prompts.

    Args:
        visual: open_clip's `VisionTransformer`.
        adapted: 0-based blocks that are tapped and may hold prompts.
        saa_blocks: 0-based blocks whose SAA enters the local stream.
        ladder_factor: factor of each SAA, Eq. (5).
    """

    def __init__(
        self, visual: nn.Module, *, adapted: Sequence[int], saa_blocks: Sequence[int], ladder_factor: float
    ) -> None:
        super().__init__()
        self.visual = visual
        self.blocks = list(visual.transformer.resblocks)  # a plain list: registered below `visual` already
        self.adapted, self.saa_blocks, self.ladder_factor = tuple(adapted), frozenset(saa_blocks), ladder_factor
        self.fork = min(adapted, default=len(self.blocks))

    @property
    def width(self) -> int:
        """W."""
        return self.visual.proj.shape[0]

    @torch.no_grad()
    def stem(self, images: Tensor) -> TrunkState:
        """Both streams in front of the first adapted block.

        Args:
            images: (B, 3, H, W), normalised; sides are multiples of the patch size.
        """
        visual = self.visual
        patches = visual.conv1(images)  # (B, W, rows, columns)
        grid = tuple(patches.shape[2:])
        x = patches.flatten(2).transpose(1, 2)  # (B, N, W)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1).to(x.dtype), x], 1)
        x = visual.ln_pre(x + resize_positions(visual.positional_embedding, visual.grid_size, grid).to(x.dtype))
        saa = x[:, 1:]
        for index in range(self.fork):
            x, saa = self._advance(index, x, saa)
        return TrunkState(x, saa, grid)

    def finish(self, state: TrunkState, prompts: Mapping[int, Tensor]) -> TrunkFeatures:
        """The student's features; `prompts` maps adapted blocks to (P, W)."""
        x, saa, taps = state.x, state.saa, {}
        for index in range(self.fork, len(self.blocks)):
            x, saa = self._advance(index, x, saa, prompts.get(index))
            if index in self.adapted:
                taps[index] = x[:, 1:]
        return TrunkFeatures(self.project(x[:, 0]), saa, taps, state.grid)

    @torch.no_grad()
    def teacher_regions(self, state: TrunkState) -> Tensor:
        """The frozen CLIP's local features (B, N, D): the SAA stream without prompts or ladder."""
        x, saa = state.x, state.saa
        for index in range(self.fork, len(self.blocks)):
            x, saa = self._advance(index, x, saa)
        return self.project(saa)

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., W) in the joint space, (..., D), not normalised."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _advance(self, index: int, x: Tensor, saa: Tensor, prompts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both streams after a block.

        What a block makes of its prompts is dropped, so they act as keys and values only; the local stream
        never sees them.
        """
        block = self.blocks[index]
        q, k, v = project_qkv(block, x)
        if index in self.saa_blocks:
            saa = saa + self.ladder_factor * self_aware_attention(block, v)[:, 1:]
        if prompts is not None:
            _, prompt_k, prompt_v = project_qkv(block, prompts[None])  # (1, h, P, d)
            k = torch.cat([k, prompt_k.expand(len(k), -1, -1, -1)], 2)
            v = torch.cat([v, prompt_v.expand(len(v), -1, -1, -1)], 2)
        return run_block(block, x, (q, k, v)), saa


def resize_positions(positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    """Positional embeddings (1 + N, W) for another grid: CLS kept, patches interpolated bicubically."""
    if tuple(grid) == tuple(wanted):
        return positions
    patches = positions[1:].T.unflatten(1, tuple(grid))[None]  # (1, W, rows, columns)
    resized = F.interpolate(patches, size=tuple(wanted), mode="bicubic", antialias=True)
    return torch.cat([positions[:1], resized[0].flatten(1).T])
