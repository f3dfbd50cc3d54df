"""TagCLIP: tags without training (Lin et al., AAAI 2024, arXiv 2312.12828; github.com/linyq2117/TagCLIP).

    image --> CLIP, last block on values --> coarse map p (N, J) --W--> p1 --boxes D--> p2 = W (D p) --> local scores
              attention of all blocks   --> W (N, N)                                       |
    score = (local + q) / 2 where the local score is high: q of CLIP on the crop around the label's region of p2

Columns are the candidate labels, then words for the background, which compete in every softmax and get no score. All
block numbers are the official ones for 12 blocks and keep their place from the end, or their share, in other towers.

Deviations from the official code: images come at INPUT.SIZE_TEST, where the code keeps each image's own size;
positional embeddings are not rounded to half precision; a label whose box has no area keeps its local score, where the
code ends there and looks at no label behind it, so that scores depend on the order of the labels.

B images, N patches, J columns, C labels, L blocks, D joint width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from clip.blocks import attention_weights, run_block, run_block_on_values
from clip.image import ImageTrunk
from clip.text import TextEncoder
from model.method import Method

__all__ = [
    "SCENE_TEMPLATES", "Columns", "TagCLIP", "Tags", "box_masks", "coarse_map", "refinement", "region_of", "stretched"
]  # fmt: skip

SCENE_TEMPLATES = (  # that the official code takes beside ImageNet's
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.",
)  # fmt: skip
IN_PLANE = [[[0] * 3] * 3, [[1] * 3] * 3, [[0] * 3] * 3]  # eight neighbours, of the same column
CROPS = 64  # computed at once

Box = tuple[slice, slice]  # rows and columns of patches


class Columns(NamedTuple):
    """Candidate labels and the background words beside them."""

    features: Tensor  # (J, D), normalised
    candidates: int  # C, the first ones


class Tags(NamedTuple):
    """What TagCLIP says of a batch of images."""

    scores: Tensor  # (B, C)
    local: Tensor  # (B, C), before labels are looked at again


class TagCLIP(Method):
    """Scores from patches, refined by attention and boxes, and from crops.

    Args:
        trunk: image tower, for images in the CLIP's own normalisation.
        text: text tower.
        scale: CLIP's logit scale.
        templates: over which the features of labels are averaged.
        background: words for what is no label; those that are labels, in singular or plural, are left out.
        blocks: how many blocks in front of the last one the refining attention is the mean of; officially 3.
        votes: share of all blocks that have to agree on a pair of patches; officially 4 of 12.
        threshold: between the lowest (0) and highest (1) value of the refined map, above which a label is looked at
            again; officially 0.5.
    """

    title = "TagCLIP"
    frozen = ("trunk", "text")
    mixes = False  # votes and boxes turn on small differences

    def __init__(
        self, *, trunk: ImageTrunk, text: TextEncoder, scale: float, templates: Sequence[str],
        background: Sequence[str], blocks: int, votes: float, threshold: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.scale, self.templates = trunk, text, scale, tuple(templates)
        self.background, self.blocks, self.votes, self.threshold = tuple(background), blocks, votes, threshold

    def encode_labels(self, names: Sequence[str]) -> Columns:
        """The features of the candidates and of the words for the background."""
        taken = {name.lower() for name in names}
        words = [word for word in self.background if not taken & {word.lower(), f"{word.lower()}s"}]
        return Columns(self.text.averaged([*names, *words], self.templates), len(names))

    @torch.no_grad()
    def forward(self, images: Tensor, labels: Columns, targets: Tensor | None = None) -> Tags:  # noqa: ARG002
        """Scores of images (B, 3, H, W), one after the other, in float32."""
        with torch.autocast(images.device.type, enabled=False):
            found = [self._tag(image[None].float(), labels) for image in images]
        return Tags(*(torch.stack(values) for values in zip(*found, strict=True)))

    def _tag(self, image: Tensor, labels: Columns) -> tuple[Tensor, Tensor]:
        """Scores (C,) and local scores (C,) of one image (1, 3, H, W)."""
        patches, attention, grid = self._look(image)
        coarse = coarse_map(patches, labels.features, self.scale)
        weights = refinement(attention, blocks=self.blocks, votes=self.votes)
        boxes = box_masks(weights @ coarse, grid)
        refined = weights @ (boxes.flatten(1).T * coarse)  # (N, J)
        local = refined[:, : labels.candidates].amax(0)
        return self._looked_at_again(image, refined, local, grid, labels), local

    def _look(self, image: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Patches in the joint space (N, D), the attention between them (L, N, N), and their grid, of one image.

        The last block has its attention all the same; only what comes out of it is made of values alone.
        """
        x, grid = self.trunk.embed(image)
        *earlier, last = self.trunk.blocks
        attention = []
        for block in earlier:
            attention.append(attention_weights(block, x)[0, 1:, 1:])
            x = run_block(block, x)
        attention.append(attention_weights(last, x)[0, 1:, 1:])
        return self.trunk.project(run_block_on_values(last, x[:, 1:]))[0], torch.stack(attention), grid

    def _looked_at_again(
        self, image: Tensor, refined: Tensor, local: Tensor, grid: tuple[int, int], labels: Columns
    ) -> Tensor:
        """Scores (C,): the mean of local scores and those of crops, where the local score is high."""
        lowest, highest = refined.aminmax()
        high = local > lowest + self.threshold * (highest - lowest)
        chosen, crops, masks = [], [], []
        for index in high.nonzero().flatten().tolist():  # host-device sync
            region, box = region_of(refined[:, index], grid)
            if box is not None:
                chosen.append(index)
                crops.append(self._crop(image, box))
                masks.append(F.interpolate(region[box][None, None].float(), self.trunk.visual.grid_size)[0, 0] > 0)
        scores = local.clone()
        if chosen:
            features = F.normalize(self._global_features(torch.cat(crops), torch.stack(masks)), dim=-1)
            q = (self.scale * features @ labels.features.T).softmax(-1)  # (labels looked at, J)
            scores[chosen] = (local[chosen] + q[:, chosen].diagonal()) / 2
        return scores

    def _crop(self, image: Tensor, box: Box) -> Tensor:
        """The pixels of a box of patches at the size that the CLIP was made for, (1, 3, h, w)."""
        rows, columns = (
            slice(side.start * patch, side.stop * patch)
            for side, patch in zip(box, self.trunk.visual.patch_size, strict=True)
        )
        return F.interpolate(image[:, :, rows, columns], self.trunk.visual.image_size, mode="bilinear")

    def _global_features(self, crops: Tensor, masks: Tensor) -> Tensor:
        """Global features (K, D) of crops, for which only patches of the masks (K, rows, columns) are looked at.

        This holds for the global token in every block; patches look at everything.
        """
        found = []
        for part, mask in zip(crops.split(CROPS), masks.split(CROPS), strict=True):
            x, _ = self.trunk.embed(part)
            sees = torch.ones(len(x), 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
            sees[:, 0, 0, 1:] = mask.flatten(1)
            for block in self.trunk.blocks:
                x = run_block(block, x, mask=sees)
            found.append(self.trunk.project(x[:, 0]))
        return torch.cat(found)


def coarse_map(features: Tensor, texts: Tensor, scale: float) -> Tensor:
    """p_ij = softmax over all columns of scale cos(patch i, text j): (N, J) of (N, D) and normalised (J, D)."""
    return (scale * F.normalize(features, dim=-1) @ texts.T).softmax(-1)


def refinement(attention: Tensor, *, blocks: int, votes: float) -> Tensor:
    """W (N, N): the mean attention of `blocks` blocks in front of the last, 0 where too few of all blocks agree.

    A block agrees on a pair of patches if its attention is above its mean over all pairs. Rows do not sum to 1.

    Args:
        attention: (L, N, N), of every block, row i what patch i looks at.
        blocks: at least 1; as many as there are where the tower has fewer, and the only block where it is alone.
        votes: share of the blocks that have to agree.
    """
    agreeing = (attention > attention.mean((1, 2), keepdim=True)).sum(0)
    needed = math.ceil(votes * len(attention) - 1e-6)  # 4 of 12, whatever a third is in floating point
    chosen = attention[:-1][-blocks:] if len(attention) > 1 else attention
    return chosen.mean(0) * (agreeing >= needed)


def stretched(maps: Tensor) -> Tensor:
    """Each column (N,) or (N, J) brought to [0, 1]; a constant one becomes 0."""
    lowest, highest = maps.amin(0), maps.amax(0)
    return (maps - lowest) / (highest - lowest).clamp(min=torch.finfo(maps.dtype).tiny)


def box_masks(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """D (J, rows, columns), boolean: the boxes around the connected regions that are above the mean of their column.

    The official code compares 8-bit maps, joins patches that touch at a corner, and never has the last row and column
    in a box.

    Args:
        maps: (N, J).
        grid: rows and columns of the N patches.
    """
    levels = stretched(maps)
    foreground = (255 * levels).floor() > (255 * levels.mean(0)).floor()
    components, _ = ndimage.label(foreground.T.unflatten(1, grid).cpu().numpy(), IN_PLANE)  # host-device sync
    masks = torch.zeros(components.shape, dtype=torch.bool)
    for plane, *box in ndimage.find_objects(components):
        masks[plane, *_cut(box, grid)] = True
    return masks.to(maps.device)


def region_of(column: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Box | None]:
    """Where a column (N,) of the refined map is above half, (rows, columns), boolean, and the box around that.

    As in `box_masks`, the last row and column of the grid are never in the box; None if nothing is left of it.
    """
    region = stretched(column).unflatten(0, grid) > 0.5
    around = [_cut(box, grid) for box in ndimage.find_objects(region.int().cpu().numpy())]  # host-device sync
    return region, next((box for box in around if all(side.start < side.stop for side in box)), None)


def _cut(box: Sequence[slice], grid: tuple[int, int]) -> Box:
    rows, columns = (slice(side.start, min(side.stop, end - 1)) for side, end in zip(box, grid, strict=True))
    return rows, columns
