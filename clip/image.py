"""The image tower of the frozen CLIP where it is a ViT, with the self-aware attention that recovers local features.

One trunk serves student and teacher: the teacher is the trunk without prompts. Below the first adapted
block their main stream is the same computation and runs once, in `stem`. Each has a local stream of its own: the
student's is what its settings say, the teacher's is always the sum of the SAA of all blocks.

B images, N regions (patches), W trunk width, D joint width, P prompts, L adapted blocks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.blocks import (
    project_qkv,
    project_values,
    run_block,
    run_block_at_start,
    run_block_on_values,
    self_aware_attention,
)
from clip.trunk import DenseFeatures, FeatureMap, Trunk

__all__ = ["ImageTrunk", "TrunkFeatures", "TrunkState", "resize_positions"]


class TrunkState(NamedTuple):
    """Where student and teacher part: in front of the first adapted block."""

    x: Tensor  # (B, 1 + N, W), main stream, CLS first
    saa: Tensor  # (B, N, W), the student's local stream so far
    teacher: Tensor | None  # (B, N, W), the teacher's, where it was asked for
    grid: tuple[int, int]  # rows and columns of regions


class TrunkFeatures(NamedTuple):
    """What the ladder is built from."""

    cls: Tensor  # (B, D), the global feature, not normalised
    saa: Tensor  # (B, N, W), local stream: where it starts, plus the SAA of every SAA block; without any, the patches
    taps: dict[int, Tensor]  # block -> (B, N, W), patches after each adapted block
    factor: float  # of SAA and TSS in the ladder, Eq. (5)
    grid: tuple[int, int]


class ImageTrunk(Trunk):
    """A frozen ViT of open_clip: features of images with and without visual prompts.

    Args:
        visual: open_clip's `VisionTransformer`.
        adapted: 0-based blocks that are tapped and may hold prompts.
        saa_blocks: 0-based blocks whose SAA enters the student's local stream; where there is none, the local stream is
            the patches of the main stream behind the last block (Tables 6 and 11).
        ladder_factor: factor of each SAA in it, Eq. (5).
        ladder_start: 0-based block whose input the student's local stream starts from; 0, the patch embeddings, in the
            release, the first block of the ladder in Eq. (5) as printed.
        positions: how positional embeddings are brought to another grid, see `resize_positions`.
        regions: what `dense_features` takes patches for, values or saa.
    """

    def __init__(
        self, visual: Any, *, adapted: Sequence[int], saa_blocks: Sequence[int], ladder_factor: float,
        ladder_start: int, positions: str, regions: str = "values",
    ) -> None:  # fmt: skip
        super().__init__()
        self.visual = visual
        self.blocks = list(visual.transformer.resblocks)  # a plain list: registered below `visual` already
        self.adapted, self.saa_blocks, self.ladder_factor = tuple(adapted), frozenset(saa_blocks), ladder_factor
        self.ladder_start, self.positions, self.regions = ladder_start, positions, regions
        self.fork = min(adapted, default=len(self.blocks))

    @property
    def width(self) -> int:
        """W."""
        return self.visual.proj.shape[0]

    @torch.no_grad()
    def stem(self, images: Tensor, *, teacher: bool = False) -> TrunkState:
        """All streams in front of the first adapted block; the teacher's only if asked for.

        Args:
            images: (B, 3, H, W), normalised; sides are multiples of the patch size.
            teacher: whether `teacher_regions` follows.
        """
        x, grid = self.embed(images)
        student = frozen = x[:, 1:]
        for index in range(self.fork):
            student = self._started(index, x, student)
            x, saa = self._advance(index, x, needs_saa=teacher or index in self.saa_blocks)
            student = self._climbed(index, student, saa)
            if teacher:
                assert saa is not None  # as was asked for
                frozen = frozen + saa
        return TrunkState(x, student, frozen if teacher else None, grid)

    @torch.no_grad()
    def global_features(self, images: Tensor) -> Tensor:
        """The frozen CLIP's own image features (B, D), not normalised; no local stream is computed."""
        x, _ = self.embed(images)
        *earlier, last = self.blocks
        for block in earlier:
            x = run_block(block, x)
        return self.project(run_block_at_start(last, x)[:, 0])

    @torch.no_grad()
    def dense_features(self, images: Tensor) -> DenseFeatures:
        """The frozen CLIP's own features of the images and of their patches.

        Patches pass the last block without query-key attention (`clip.blocks.run_block_on_values`); or, where `regions`
        is "saa", they are the local features of RAM's teacher (`teacher_regions`).
        """
        x, _ = self.embed(images)
        local, last = x[:, 1:], self.blocks[-1]
        for index in range(len(self.blocks) - 1):
            x, saa = self._advance(index, x, needs_saa=self.regions == "saa")
            local = local if saa is None else local + saa
        image = self.project(run_block_at_start(last, x)[:, 0])
        if self.regions == "saa":
            local = local + self_aware_attention(last, project_values(last, x))[:, 1:]
            return DenseFeatures(image, self.project(local))
        return DenseFeatures(image, self.project(run_block_on_values(last, x[:, 1:])))

    def regions_with_mean(self, images: Tensor) -> Tensor:
        """The patches behind the global feature, which is what a ViT pools to: (B, 1 + N, D), not normalised."""
        image, patches = self.dense_features(images)
        return torch.cat([image[:, None], patches], 1)

    @torch.no_grad()
    def feature_map(self, images: Tensor) -> FeatureMap:
        """The frozen CLIP's own patches behind the last block and the last LayerNorm."""
        x, grid = self.embed(images)
        for block in self.blocks:
            x = run_block(block, x)
        patches = self.visual.ln_post(x[:, 1:])  # (B, N, W)
        return FeatureMap(self.project(x[:, 0]), patches.transpose(1, 2).unflatten(2, grid))

    def finish(self, state: TrunkState, prompts: Mapping[int, Tensor]) -> TrunkFeatures:
        """The student's features; `prompts` maps adapted blocks to (P, W)."""
        x, student, taps = state.x, state.saa, {}
        for index in range(self.fork, len(self.blocks)):
            student = self._started(index, x, student)
            x, saa = self._advance(index, x, prompts.get(index), needs_saa=index in self.saa_blocks)
            student = self._climbed(index, student, saa)
            if index in self.adapted:
                taps[index] = x[:, 1:]
        if not self.saa_blocks:
            student = x[:, 1:]
        return TrunkFeatures(self.project(x[:, 0]), student, taps, self.ladder_factor, state.grid)

    @torch.no_grad()
    def teacher_regions(self, state: TrunkState) -> Tensor:
        """The frozen CLIP's local features (B, N, D): patch embeddings plus the SAA of all blocks, no prompts or TSS.

        `saa_blocks`, `ladder_factor` and `ladder_start` are the student's alone, as in the release.

        Args:
            state: what `stem` gives with `teacher=True`.
        """
        x, frozen = state.x, state.teacher
        assert frozen is not None, "the stem ran without the teacher"
        for index in range(self.fork, len(self.blocks) - 1):
            x, saa = self._advance(index, x, needs_saa=True)
            assert saa is not None  # as was asked for
            frozen = frozen + saa
        if self.fork < len(self.blocks):  # of the last block nobody asks for more
            last = self.blocks[-1]
            frozen = frozen + self_aware_attention(last, project_values(last, x))[:, 1:]
        return self.project(frozen)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens in front of the first block, (B, 1 + N, W), CLS first, and the grid of the patches."""
        visual = self.visual
        patches = visual.conv1(images)  # (B, W, rows, columns)
        grid = tuple(patches.shape[2:])
        x = patches.flatten(2).transpose(1, 2)  # (B, N, W)
        x = torch.cat([visual.class_embedding.expand(x.shape[0], 1, -1), x], 1)
        positions = resize_positions(visual.positional_embedding, visual.grid_size, grid, self.positions)
        return visual.ln_pre(x + positions), grid

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens (..., W) in the joint space, (..., D), not normalised."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _started(self, index: int, x: Tensor, student: Tensor) -> Tensor:
        """The student's local stream in front of a block: anew from the block's input where it starts."""
        return x[:, 1:] if index == self.ladder_start else student

    def _climbed(self, index: int, student: Tensor, saa: Tensor | None) -> Tensor:
        """The student's local stream behind a block."""
        if index not in self.saa_blocks:
            return student
        assert saa is not None  # whoever advances asks for that of these blocks
        return student + self.ladder_factor * saa

    def _advance(
        self, index: int, x: Tensor, prompts: Tensor | None = None, *, needs_saa: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The main stream after a block, and the block's SAA of the patches (B, N, W) where it is needed.

        What a block makes of its prompts is dropped, so they act as keys and values only; SAA never sees them.
        """
        block = self.blocks[index]
        q, k, v = project_qkv(block, x)
        saa = self_aware_attention(block, v)[:, 1:] if needs_saa else None
        if prompts is not None:
            _, prompt_k, prompt_v = project_qkv(block, prompts[None])  # (1, h, P, d)
            k = torch.cat([k, prompt_k.expand(k.shape[0], -1, -1, -1)], 2)
            v = torch.cat([v, prompt_v.expand(v.shape[0], -1, -1, -1)], 2)
        return run_block(block, x, (q, k, v)), saa


def resize_positions(
    positions: Tensor, grid: tuple[int, int], wanted: tuple[int, int], how: str, *, antialias: bool = True
) -> Tensor:
    """Positional embeddings (1 + N, W) for another grid: the first kept, those of regions interpolated.

    Args:
        positions: (1 + N, W), that of the whole image first.
        grid: rows and columns of the N regions.
        wanted: rows and columns of the result.
        how: "bilinear" or "bicubic".
        antialias: of bicubic: torch's antialiased kernel, another one even where the grid grows, as open_clip has it.
    """
    if tuple(grid) == tuple(wanted):
        return positions
    patches = positions[1:].T.unflatten(1, tuple(grid))[None]  # (1, W, rows, columns)
    resized = F.interpolate(patches, size=tuple(wanted), mode=how, antialias=antialias and how == "bicubic")
    return torch.cat([positions[:1], resized[0].flatten(1).T])
