"""RAM with windows: labels are matched to the patches and to their means over windows of 2 x 2 patches.

An object that lies on several patches is seen whole by none of them. A window's feature is the mean of its patches'
normalised features, so no pass of the image tower is added; they enter LPD, TKT, the plan and the evidence of a label
like any other region. Nothing is trained that RAM does not train. docs/probabilities.md holds what was measured, also
of what did not help.

B images, n patches on a grid of h x w, N = h w + (h - 1)(w - 1) regions, D joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from model.model import RAM

__all__ = ["WindowedRAM"]

WINDOW = 2  # patches of a side


class WindowedRAM(RAM):
    """RAM whose regions are patches and windows of patches; see `RAM` for the arguments."""

    title = "RAM with windows"

    def matched(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patches (B, n, D) and behind them the windows, row by row: (B, N, D)."""
        unit = F.normalize(patches.float(), dim=-1)
        windows = F.avg_pool2d(unit.transpose(1, 2).unflatten(2, grid), _sides(grid), 1)  # (B, D, h - 1, w - 1)
        return torch.cat([unit, windows.flatten(2).transpose(1, 2)], 1)

    def on_grid(self, shares: Tensor, grid: tuple[int, int]) -> Tensor:
        """Shares of regions (B, N, C) by patches (B, n, C), with the same sums: a window gives each patch a fourth."""
        (rows, columns), sides = grid, _sides(grid)
        patches, windows = shares[:, : rows * columns], shares[:, rows * columns :].transpose(1, 2)  # (B, C, windows)
        spread = F.fold(
            windows.flatten(0, 1)[:, None].expand(-1, sides[0] * sides[1], -1) / (sides[0] * sides[1]), grid, sides
        )  # (B C, 1, h, w)
        return patches + spread.view(*windows.shape[:2], rows * columns).transpose(1, 2)


def _sides(grid: tuple[int, int]) -> tuple[int, int]:
    """Of a window, which a grid of one row or column narrows."""
    return min(WINDOW, grid[0]), min(WINDOW, grid[1])
