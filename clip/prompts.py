"""Deep prompts: learnable tokens, new in every prompted block (RAM, CVPR 2025, Section 3.1 and App. B)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["DeepPrompts"]


class DeepPrompts(nn.Module):
    """P learnable tokens of width W for each of some blocks, drawn from N(0, 0.02^2).

    Args:
        blocks: 0-based indices.
        count: P; 0 leaves every block without prompts.
        width: W.
    """

    def __init__(self, blocks: Sequence[int], *, count: int, width: int) -> None:
        super().__init__()
        self.by_block = nn.ParameterDict(
            {str(index): nn.Parameter(0.02 * torch.randn(count, width)) for index in blocks if count}
        )

    def forward(self) -> dict[int, Tensor]:
        """Block -> (P, W)."""
        return {int(index): prompt for index, prompt in self.by_block.items()}
