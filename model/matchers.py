"""What a matcher is, and three without transport: how much each region counts for each label.

    matching = matcher(similarity)                          # at test
    matching = matcher(similarity, assignment, targets)     # in training, with what the teacher knows

A matcher is a module from cosines (B, N, C) to a plan (B, N, C) whose columns sum to 1/C: so that local logits, and
with them their temperature, have the same scale whichever matcher is chosen (Eq. (14)). The plan only weights
similarities: no gradient flows through it. `needs_teacher` says whether it looks at the last two arguments.

To add one, write such a module and enter a function (configuration, CLIP's logit scale) -> matcher into `MATCHERS` of
`model/build.py`, as for methods (`model/method.py`). `model/kcot.py` holds RAM's own and its ablations. The variants
here are those of RAM (CVPR 2025), Table 5, where nothing but the matching is exchanged.

B images, N regions, C labels.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from errors import UserError

__all__ = ["Average", "Bipartite", "Matcher", "Matching", "MatchingError", "Reweight", "matching_cost"]

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class MatchingError(UserError, ValueError):
    """A problem that a matcher cannot solve."""


class Matching(NamedTuple):
    """A plan, and what it was solved from as far as there is such a thing, named as in the paper."""

    plan: Tensor  # (B, N, C), columns sum to 1/C
    cost: Tensor | None = None  # (B, N, C), with the teacher's term in training
    mu: Tensor | None = None  # (B, N), rows sum to 1
    reg: float | None = None  # lambda 1 at test, lambda 1 + lambda 2 in training
    diagnostics: Mapping[str, Tensor] = NOTHING  # (B,) each, for the log


class Matcher(Protocol):
    """What the method asks of a matcher; it is a module too."""

    @property
    def needs_teacher(self) -> bool:
        """Whether the assignment is looked at in training."""

    def __call__(self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None) -> Matching:
        """The plan for cosines (B, N, C)."""


def matching_cost(similarity: Tensor, scale: float) -> Tensor:
    """C_ij = 1 - softmax_j(scale * s_ij), Eq. (7): (B, N, C) in [0, 1].

    Args:
        similarity: (B, N, C), cosines of regions and labels.
        scale: CLIP's pre-trained logit scale, 1 / tau.
    """
    return 1 - (scale * similarity).softmax(-1)


class Average(nn.Module):
    """All regions count the same: T_ij = 1 / (N C)."""

    needs_teacher = False

    @torch.no_grad()
    def forward(
        self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None  # noqa: ARG002
    ) -> Matching:  # fmt: skip
        """The plan for cosines (B, N, C)."""
        return Matching(torch.full_like(similarity, 1 / (similarity.shape[1] * similarity.shape[2])))


class Reweight(nn.Module):
    """Each label attends to its most similar regions: T_ij = softmax_i(sharpness s_ij) / C.

    DualCoOp (Sun et al., NeurIPS 2022) pools like this with a sharpness of 20, but lets gradients through the weights.

    Args:
        sharpness: factor of the cosines.
    """

    needs_teacher = False

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness

    @torch.no_grad()
    def forward(
        self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None  # noqa: ARG002
    ) -> Matching:  # fmt: skip
        """The plan for cosines (B, N, C)."""
        return Matching((self.sharpness * similarity).softmax(1) / similarity.shape[2])


class Bipartite(nn.Module):
    """One region for each label, no region twice: T = 1/C on the pairs of least total cost, Eq. (7).

    Args:
        scale: CLIP's pre-trained logit scale, see `matching_cost`.
    """

    needs_teacher = False

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    @torch.no_grad()
    def forward(
        self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None  # noqa: ARG002
    ) -> Matching:  # fmt: skip
        """The plan for cosines (B, N, C); solved on the CPU, image by image.

        Raises:
            MatchingError: if there are more labels than regions.
        """
        _, regions, labels = similarity.shape
        if labels > regions:
            raise MatchingError(
                f"bipartite matching needs a region for each label; there are {regions} regions and {labels} labels: "
                "choose another MODEL.MATCHER"
            )
        from scipy.optimize import linear_sum_assignment  # on use: half a second at every start else

        cost = matching_cost(similarity, self.scale)
        plan = torch.zeros_like(similarity)
        for image, costs in enumerate(cost.double().cpu().numpy()):  # host-device sync
            rows, columns = linear_sum_assignment(costs)
            plan[image, rows, columns] = 1 / labels
        return Matching(plan, cost)
