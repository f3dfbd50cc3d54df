"""What RAM sees where, step by step: what its figures show and its localisation is measured on.

Three local features of the same images, each with the labels that belong to it:

    CLIP       patches of the frozen CLIP behind its last block          frozen labels
    SAA        the local stream of the frozen CLIP, Eq. (3)              frozen labels
    SAA + TSS  the regions of the trained ladder, Eq. (5)                prompted labels

and four plans of the last of them. The teacher of TKT only ever takes part in training: at test, KCOT is OT + LPD.

B images, N regions, C labels.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.blocks import project_qkv
from clip.image import ImageTrunk
from model import RAM, ModelError
from model.kcot import KCOT
from model.matchers import Average, Matcher, Reweight, matching_cost
from model.model import Labels

__all__ = ["FEATURES", "PLANS", "Views", "views"]

FEATURES = ("CLIP", "SAA", "SAA + TSS")
PLANS = ("average", "re-weighting", "OT", "KCOT")


class Views(NamedTuple):
    """Everything that has a place in the images."""

    attention: Tensor  # (B, N), of the CLS token in the frozen CLIP's last block, mean over heads; sums to 1 with CLS
    similarity: Mapping[str, Tensor]  # by FEATURES, (B, N, C), cosines of regions and labels
    affinity: Mapping[str, Tensor]  # likewise, softmax of them over the labels at CLIP's scale: 1 - cost of Eq. (7)
    mu: Tensor  # (B, N), weights of the regions, Eq. (8); rows sum to 1
    plans: Mapping[str, Tensor]  # by PLANS, (B, N, C), each label's share of the regions: C times the plan, sums to 1
    grid: tuple[int, int]  # rows and columns of the regions


@torch.no_grad()
def views(ram: RAM, images: Tensor, labels: Labels, *, sharpness: float = 20.0) -> Views:
    """All views of a batch.

    Args:
        ram: in evaluation mode; its matcher is KCOT with LPD.
        images: (B, 3, H, W), as the method takes them; the frozen CLIP sees them so, too.
        labels: the candidates, which compete for the regions; what `ram.encode_labels` gives.
        sharpness: of re-weighting, 20 as in DualCoOp.

    Raises:
        ModelError: if its matcher has no transport problem or no region weights.
    """
    matcher: Any = ram.matcher
    if getattr(matcher, "presence_temperature", None) is None:
        raise ModelError("maps need a method with LPD: train it with MODEL.MATCHER kcot or ot+lpd")
    patches, attention = _frozen(ram, images)
    recovered = _recovered(ram, images)
    recognition = ram(images, labels)
    frozen = F.normalize(labels.frozen.float(), dim=-1).T
    similarity = {
        "CLIP": F.normalize(patches.float(), dim=-1) @ frozen, "SAA": F.normalize(recovered.float(), dim=-1) @ frozen,
        "SAA + TSS": recognition.similarity,
    }  # fmt: skip
    affinity = {name: 1 - matching_cost(cosines, matcher.scale) for name, cosines in similarity.items()}
    assert recognition.matching.mu is not None  # as KCOT gives it
    plans = {
        name: len(labels.names) * each(recognition.similarity).plan for name, each in _matchers(matcher, sharpness)
    }
    return Views(attention, similarity, affinity, recognition.matching.mu, plans, recognition.grid)


def _frozen(ram: RAM, images: Tensor) -> tuple[Tensor, Tensor]:
    """Patches of the frozen CLIP (B, N, D), not normalised, and the attention of its CLS token (B, N)."""
    last = len(ram.trunk.blocks) - 1
    trunk = ImageTrunk(
        ram.trunk.visual, adapted=(last,), saa_blocks=(), ladder_factor=1.0, ladder_start=0,
        positions=ram.trunk.positions,
    )  # fmt: skip
    state = trunk.stem(images)
    q, k, _ = project_qkv(trunk.blocks[last], state.x)
    weights = (q[:, :, :1].float() @ k.float().transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # (B, h, 1, 1 + N)
    return trunk.project(trunk.finish(state, {}).saa), weights.mean(1)[:, 0, 1:]


def _recovered(ram: RAM, images: Tensor) -> Tensor:
    """The local stream of the frozen CLIP, built as the student's (B, N, D), not normalised: no prompts, no TSS."""
    own = ram.trunk
    trunk = ImageTrunk(
        own.visual, adapted=(), saa_blocks=sorted(own.saa_blocks), ladder_factor=own.ladder_factor,
        ladder_start=own.ladder_start, positions=own.positions,
    )  # fmt: skip
    return trunk.project(trunk.finish(trunk.stem(images), {}).saa)


def _matchers(kcot: KCOT, sharpness: float) -> list[tuple[str, Matcher]]:
    """The matchers of PLANS, with the settings of the given one."""
    transport = KCOT(
        scale=kcot.scale, reg=kcot.reg, reg_teacher=None, presence_temperature=None, solve=kcot.solve
    )  # fmt: skip
    return list(zip(PLANS, (Average(), Reweight(sharpness), transport, kcot), strict=True))
