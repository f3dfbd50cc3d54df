"""What an image says of one label, whichever other labels are asked for.

The published score of RAM couples the labels that are asked for in three places: TSS attends to all of them, the cost
is a softmax over them (Eq. (7)), and the plan shares the regions among them. Here the seen labels of the training, the
anchors, take the place of the list in all three, and an asked label j only ever meets the image and the anchors A:

    p_ij = exp(scale s_ij) / (sum_{k in A} exp(scale s_ik) + [j not in A] exp(scale s_ij))
    w_ij = a_i exp(-(1 - p_ij) / reg), normalised over regions i
    l_j  = sum_i w_ij s_ij

with a the row scalings of the anchors' own transport problem.

For an anchor, w is its column of the plan of RAM, up to its mass, and l_j / (S tau) its local logit. `RegionEvidence`
gathers these and simpler statistics of the same cosines into F numbers for each image and label, which
`tagging.calibration` turns into a probability.

B images, N regions, C asked labels, S anchors, D joint width, F = 34 numbers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model import RAM, ModelError
from model.kcot import KCOT
from model.ot_solver import sinkhorn

__all__ = ["NAMES", "Asked", "Evidence", "Gallery", "RegionEvidence", "joined", "obstacle"]

CLOSEST, MARGINS = 8, 4  # regions whose cosines, and whose margins, are looked at one by one
SHARPNESSES = (10.0, 30.0, 100.0)  # of soft maxima of cosines over regions
ITERATIONS = 100  # of the anchors' transport problem
LARGEST = 2**19  # numbers (B, N, C) that are held at once; more only leave the caches of a processor
NAMES = (
    "local logit", "global logit", "local level", "global level", "mean of the 4 largest cosines",
    "logit of the largest p", "logit of the mean of the 4 largest p",
    *(f"cosine {k + 1}" for k in range(CLOSEST)), *(f"logit of p {k + 1}" for k in range(CLOSEST)),
    *(f"margin {k + 1}" for k in range(MARGINS)), *(f"soft maximum of cosines, sharpness {k:g}" for k in SHARPNESSES),
    "log of the sum of p", "log of the weighted sum of p", "local logit among the anchors'",
    "global logit among the anchors'",
)  # fmt: skip


class Asked(NamedTuple):
    """Labels, encoded one by one."""

    names: tuple[str, ...]
    text: Tensor  # (C, D), normalised, float64 where the device has it
    anchor: Tensor  # (C,), int64: which anchor the label is, -1 for none


class Gallery(NamedTuple):
    """What belongs to images alone. The first two, float32, decide the rest, float64 where the device has it."""

    regions: Tensor  # (B, N, D), normalised
    cls: Tensor  # (B, D), normalised
    row_scaling: Tensor  # (B, N), log a of the anchors' transport problem
    presence: Tensor  # (B, N), log of the region weights mu
    partition: Tensor  # (B, N), log of the sum over the anchors of exp(scale s)
    rivals: Tensor  # (B, N, 2), the two largest cosines to anchors
    rival: Tensor  # (B, N), int64, the anchor with the largest
    levels: Tensor  # (B, 2, 3), of local and global logits over the anchors: log-sum-exp, mean, standard deviation
    grid: tuple[int, int]  # rows and columns of the regions


class Evidence(NamedTuple):
    """What images say of labels."""

    numbers: Tensor  # (B, C, F), in the order of `NAMES`
    weights: Tensor  # (B, N, C), w: shares of the regions, sum to 1


class RegionEvidence:
    """List-independent evidence from a trained RAM.

    Args:
        ram: in evaluation mode; its matcher solves a transport problem, and its labels have no negative texts.
        anchors: the seen labels of its training.

    Raises:
        ModelError: if it is another one.
    """

    def __init__(self, ram: RAM, anchors: Sequence[str]) -> None:
        matcher: Any = ram.matcher
        self._ram = ram
        if reason := obstacle(ram):
            raise ModelError(reason)
        self._scale, self._reg = float(matcher.scale), float(matcher.reg)
        self.anchors = tuple(anchors)
        self._place = {text: k for k, text in enumerate(self._texts(self.anchors))}
        with torch.no_grad():
            encoded = ram.encode_labels(self.anchors).features
        self._guide = encoded  # (S, D), what TSS attends to
        self._text = _unit(encoded)
        # To the fixed point: where each image stops by itself, rounding may decide when.
        self._matcher = KCOT(
            scale=self._scale, reg=self._reg, reg_teacher=None, presence_temperature=matcher.presence_temperature,
            solve=partial(sinkhorn, max_iter=ITERATIONS, tol=None),
        )  # fmt: skip

    @torch.no_grad()
    def labels(self, names: Sequence[str]) -> Asked:
        """Labels as `ask` takes them; one that CLIP reads as it reads an anchor is that anchor, however it is spelt."""
        text = _unit(self._ram.encode_labels(names).features)
        anchor = torch.tensor([self._place.get(key, -1) for key in self._texts(names)], device=text.device)
        return Asked(tuple(names), text, anchor)

    @torch.no_grad()
    def gallery(self, images: Tensor) -> Gallery:
        """What belongs to images (B, 3, H, W) alone."""
        ram = self._ram
        features = ram.features(ram.stem(images))
        regions = ram.trunk.project(ram.adapter(features, self._guide))
        with torch.autocast(images.device.type, enabled=False):
            return self.situated(
                F.normalize(regions.float(), dim=-1), F.normalize(features.cls.float(), dim=-1), features.grid
            )

    @torch.no_grad()
    def situated(self, regions: Tensor, cls: Tensor, grid: tuple[int, int]) -> Gallery:
        """The gallery of region features (B, N, D) and global features (B, D), both normalised, such as stored ones."""
        similarity = regions.to(self._text.dtype) @ self._text.T  # (B, N, S)
        matching = self._matcher(similarity)
        assert matching.cost is not None  # as every matcher gives that transports
        assert matching.mu is not None
        row_scaling = (matching.plan.clamp(min=1e-37).log() + matching.cost / self._reg).mean(-1)
        rivals, rival = similarity.topk(min(2, len(self.anchors)), dim=-1)
        rivals = F.pad(rivals, (0, 2 - rivals.shape[-1]), value=-1.0)  # the only anchor has no rival
        local = (matching.plan * similarity).sum(1) / self._ram.local_temperature.float()  # (B, S)
        logits = torch.stack([local, self._global_logits(cls, self._text)], 1)  # (B, 2, S)
        levels = torch.stack([logits.logsumexp(-1), logits.mean(-1), logits.std(-1, correction=0)], -1)
        partition = (self._scale * similarity).logsumexp(-1)
        return Gallery(regions, cls, row_scaling, matching.mu.log(), partition, rivals, rival[..., 0], levels, grid)

    @torch.no_grad()
    def ask(self, gallery: Gallery, asked: Asked) -> Evidence:
        """What the images say of the labels; every label by itself."""
        similarity = gallery.regions.to(asked.text.dtype) @ asked.text.T  # (B, N, C)
        known = asked.anchor >= 0  # (C,)
        logits = self._scale * similarity
        log_p = -F.softplus(gallery.partition[..., None] - logits)  # with itself among the anchors
        log_p = torch.where(known, (logits - gallery.partition[..., None]).clamp(max=-1e-7), log_p)
        weights = (gallery.row_scaling[..., None] + (log_p.exp() - 1) / self._reg).softmax(1)
        local = (weights * similarity).sum(1) / (len(self.anchors) * self._ram.local_temperature.float())  # (B, C)
        global_ = self._global_logits(gallery.cls, asked.text)
        return Evidence(self._gathered(gallery, asked, similarity, log_p, local, global_), weights)

    def at_once(self, images: int, regions: int) -> int:
        """How many labels `ask` can be given without holding more than a few hundred MB."""
        return max(1, LARGEST // (images * regions))

    def tokens(self, names: Sequence[str]) -> Tensor:
        """What the text tower reads of labels: (C, context), int64, on the CPU."""
        return self._ram.tokens(names)

    def _texts(self, names: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(tokens) for tokens in self.tokens(names).tolist()]

    def _global_logits(self, cls: Tensor, text: Tensor) -> Tensor:
        return cls.to(text.dtype) @ text.T / self._ram.global_temperature.float()

    def _gathered(
        self, gallery: Gallery, asked: Asked, similarity: Tensor, log_p: Tensor, local: Tensor, global_: Tensor
    ) -> Tensor:
        """The F numbers, (B, C, F)."""
        closest = _largest(similarity, CLOSEST)  # (B, C, 8)
        likeliest = _largest(log_p, CLOSEST)
        best_rival = torch.where(
            gallery.rival[..., None] == asked.anchor, gallery.rivals[..., 1:], gallery.rivals[..., :1]
        )
        means = {"cosine": closest[..., :4].mean(-1), "p": likeliest[..., :4].exp().mean(-1)}
        level, mean, spread = gallery.levels.unbind(-1)  # (B, 2) each
        among = [
            (logit - mean[:, k, None]) / spread[:, k, None].clamp(min=1e-6) for k, logit in enumerate((local, global_))
        ]
        single = [
            local, global_, level[:, :1].expand_as(local), level[:, 1:].expand_as(local), means["cosine"],
            _logit(likeliest[..., 0]), torch.logit(means["p"], eps=1e-7),
        ]  # fmt: skip
        pooled = [(sharpness * similarity).logsumexp(1) / sharpness for sharpness in SHARPNESSES]
        sums = [log_p.logsumexp(1), (log_p + gallery.presence[..., None]).logsumexp(1)]
        groups = [closest, _logit(likeliest), _largest(similarity - best_rival, MARGINS)]
        return torch.cat(
            [torch.stack(single, -1), *groups, torch.stack([*pooled, *(s.clamp(min=-30) for s in sums), *among], -1)],
            -1,
        )


def joined(galleries: Sequence[Gallery]) -> Gallery:
    """The galleries of several batches as one."""
    tensors = [torch.cat(parts) for parts in zip(*(gallery[:-1] for gallery in galleries), strict=True)]
    return Gallery._make([*tensors, galleries[0].grid])


def obstacle(ram: RAM) -> str:
    """Why there is no evidence for labels one by one, in a sentence; "" where there is."""
    if ram.label_prompts.has_negatives:
        return "scores by label know no negative texts: MODEL.LABEL_PROMPTING deep or coop has none"
    if not hasattr(ram.matcher, "presence_temperature"):  # those of KCOT's family weigh regions by a cost
        return "scores by label need a matcher with a cost: MODEL.MATCHER kcot, ot, ot+lpd or ot+tkt"
    return ""


def _unit(features: Tensor) -> Tensor:
    """Normalised, in float64 where the device has it: cosines are multiplied by hundreds before they are compared."""
    exact = torch.float32 if features.device.type == "mps" else torch.float64
    return F.normalize(features.to(exact), dim=-1)


def _largest(values: Tensor, count: int) -> Tensor:
    """The largest values over regions, (B, N, C) to (B, C, count), in descending order; few regions repeat the last."""
    largest = values.topk(min(count, values.shape[1]), dim=1).values.transpose(1, 2)
    return torch.cat([largest, largest[..., -1:].expand(-1, -1, count - largest.shape[-1])], -1)


def _logit(log_p: Tensor) -> Tensor:
    """log p - log(1 - p), within what float32 tells apart."""
    return (log_p - torch.log(-torch.expm1(log_p.clamp(max=-1e-7)))).clamp(-16, 16)
