"""Ladder Local Adapter (LLA): text-guided spatial selection beside the frozen trunk.

RAM (CVPR 2025), Section 3.2, Eq. (4) and (5). The ladder reads the trunk and is never fed back into it, so
its gradients pass through no frozen block above the one it taps.

B images, N regions on a grid of h x w, W trunk width, D joint width, C labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.attention import attention
from clip.image import TrunkFeatures
from parallel import BatchNorm2d

__all__ = ["LadderLocalAdapter", "TextGuidedSelection"]


class TextGuidedSelection(nn.Module):
    """TSS of one block, Eq. (4): which positions of the block's output matter to the labels at hand.

    Two views of the features (1x1 and 3x3 convolution) attend to the labels without parameters of their own,
    two masks choose between the views at each position, and a 1x1 convolution goes back to the trunk's width.

    Args:
        width: W.
        joint_width: D.
        mask_kernel: side of the convolution that mixes the two masks, odd.
    """

    def __init__(self, width: int, joint_width: int, *, mask_kernel: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(width, joint_width, 1, bias=False)
        self.bn1x1 = BatchNorm2d(joint_width)
        self.conv3x3 = nn.Conv2d(width, joint_width, 3, padding=1, bias=False)
        self.bn3x3 = BatchNorm2d(joint_width)
        self.norm_query1x1 = nn.LayerNorm(joint_width)
        self.norm_query3x3 = nn.LayerNorm(joint_width)
        self.norm_text = nn.LayerNorm(joint_width)
        self.mask_conv = nn.Conv2d(2, 2, mask_kernel, padding=mask_kernel // 2, bias=False)
        self.out_conv = nn.Conv2d(joint_width, width, 1, bias=False)

    def forward(self, tap: Tensor, labels: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the block adds to the local stream, (B, N, W).

        Args:
            tap: (B, N, W), the block's patches.
            labels: (C, D), prompted label features, not normalised.
            grid: rows and columns of the N regions.
        """
        features = tap.transpose(1, 2).unflatten(2, grid)  # (B, W, h, w)
        text = self.norm_text(labels)
        view1 = _attend_to_labels(F.gelu(self.bn1x1(self.conv1x1(features))), self.norm_query1x1, text)
        view3 = _attend_to_labels(F.gelu(self.bn3x3(self.conv3x3(features))), self.norm_query3x3, text)
        both = torch.cat([view1, view3], 1)  # (B, 2D, h, w)
        pooled = torch.cat([both.mean(1, keepdim=True), both.amax(1, keepdim=True)], 1)  # (B, 2, h, w)
        mask1, mask3 = self.mask_conv(pooled).sigmoid().chunk(2, 1)  # (B, 1, h, w) each
        return self.out_conv(view1 * mask1 + view3 * mask3).flatten(2).transpose(1, 2)


def _attend_to_labels(view: Tensor, norm: nn.LayerNorm, text: Tensor) -> Tensor:
    """view + softmax(q text^T / sqrt(D)) text, q the normalised view (B, D, h, w); text is (C, D)."""
    query = norm(view.flatten(2).transpose(1, 2))  # (B, N, D)
    keys = text.to(query.dtype).expand(query.shape[0], -1, -1)
    attended = attention(query, keys, keys)
    return view + attended.transpose(1, 2).unflatten(2, view.shape[2:])


class LadderLocalAdapter(nn.Module):
    """The ladder: the SAA stream plus TSS of every adapted block, Eq. (5).

    Args:
        blocks: 0-based adapted blocks.
        width: W.
        joint_width: D.
        mask_kernel: see `TextGuidedSelection`.
    """

    def __init__(self, blocks: tuple[int, ...], *, width: int, joint_width: int, mask_kernel: int) -> None:
        super().__init__()
        self.selections = nn.ModuleDict(
            {str(index): TextGuidedSelection(width, joint_width, mask_kernel=mask_kernel) for index in blocks}
        )

    def forward(self, features: TrunkFeatures, labels: Tensor) -> Tensor:
        """The local stream at the top of the ladder, (B, N, W); labels are (C, D), not normalised."""
        local = features.saa
        for index, selection in self.selections.items():
            local = local + features.factor * selection(features.taps[int(index)], labels, features.grid)
        return local
