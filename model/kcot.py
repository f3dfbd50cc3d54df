"""Knowledge-constrained optimal transport (KCOT): which region belongs to which label.

RAM (CVPR 2025), Section 3.3, Eq. (6)-(12): a cost from region-label similarities, the weight of each
region by label presence detection (LPD), a teacher's assignment that lowers the cost of present labels
(teacher knowledge transfer, TKT; in training only), and the plan by Sinkhorn iterations. The plan only
weights similarities: no gradient flows through anything here. Without LPD, TKT or both it is a row of Table 6.

B images, N regions, C labels, D joint width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.matchers import Matching, matching_cost
from model.ot_solver import TransportPlan
from parallel import least

__all__ = ["KCOT", "label_presence", "teacher_assignment", "transfer_knowledge"]


def label_presence(similarity: Tensor, temperature: float) -> Tensor:
    """mu_i = softmax_i(max_j s_ij / temperature), Eq. (8): (B, N), rows sum to 1."""
    return (similarity.amax(-1) / temperature).softmax(-1)


def teacher_assignment(regions: Tensor, labels: Tensor, *, scale: float, sharpness: float) -> Tensor:
    """The frozen CLIP's assignment of regions to each label, q of Eq. (9): (B, N, C), columns sum to 1.

    p_ij = softmax_j(scale * cos(region i, label j)),  q_ij = softmax_i(sharpness * p_ij)

    Args:
        regions: (B, N, D), teacher features, of any norm.
        labels: (C, D), frozen text features, of any norm.
        scale: CLIP's pre-trained logit scale.
        sharpness: 20 in the release.
    """
    with torch.no_grad():
        cosines = F.normalize(regions.float(), dim=-1) @ F.normalize(labels.float(), dim=-1).T
        return (sharpness * (scale * cosines).softmax(-1)).softmax(1)


def transfer_knowledge(cost: Tensor, assignment: Tensor, targets: Tensor, reg_teacher: float) -> Tensor:
    """C - lambda 2 log That, Eq. (11): the cost with the teacher's term, (B, N, C).

    That is the assignment where the label is present and the smallest entry of the batch's assignment elsewhere.
    A constant along a column changes no plan (b absorbs it), so the choice of that constant only shows here. Where it
    is not known whether a label is present, the teacher is silent, as of absent labels: its knowledge is where a label
    is, which would claim that it is there.

    Args:
        cost: (B, N, C).
        assignment: (B, N, C), positive.
        targets: (B, C), 1 where the label is present, 0 where it is absent, -1 where that is not known.
        reg_teacher: lambda 2.
    """
    knowledge = torch.where(targets[:, None, :] > 0, assignment, least(assignment))
    return cost - reg_teacher * knowledge.log()


class KCOT(nn.Module):
    """Similarities to a plan, Eq. (6)-(12). Has no parameters.

    Args:
        scale: CLIP's pre-trained logit scale, 1 / tau of Eq. (7).
        reg: lambda 1.
        reg_teacher: lambda 2; None: no teacher, so that training solves the problem of the test.
        presence_temperature: of Eq. (8); None: every region weighs 1 / N.
        solve: of cost, mu, nu and reg, such as `sinkhorn` with its other arguments given.
    """

    def __init__(
        self, *, scale: float, reg: float, reg_teacher: float | None, presence_temperature: float | None,
        solve: Callable[..., TransportPlan],
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.reg, self.reg_teacher = scale, reg, reg_teacher
        self.presence_temperature, self.solve = presence_temperature, solve

    @property
    def needs_teacher(self) -> bool:
        """Whether the assignment is looked at in training."""
        return self.reg_teacher is not None

    @torch.no_grad()
    def forward(self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None) -> Matching:
        """The matching of regions and labels; with the teacher's term if its assignment is given.

        Args:
            similarity: (B, N, C), cosines of regions and labels.
            assignment: (B, N, C), what `teacher_assignment` gives; with `targets` only.
            targets: (B, C), as in `transfer_knowledge`.
        """
        cost, reg = matching_cost(similarity, self.scale), self.reg
        if self.reg_teacher is not None and assignment is not None and targets is not None:
            cost, reg = transfer_knowledge(cost, assignment, targets, self.reg_teacher), reg + self.reg_teacher
        mu = self._weights(similarity)
        nu = torch.full_like(similarity[:, 0], 1 / similarity.shape[-1])  # (B, C)
        solved = self.solve(cost, mu, nu, reg=reg)
        diagnostics = {"solver_iterations": solved.iterations, "solver_error": solved.error}
        return Matching(solved.plan, cost, mu, reg, diagnostics)

    def _weights(self, similarity: Tensor) -> Tensor:
        """mu: (B, N)."""
        if self.presence_temperature is None:
            return torch.full_like(similarity[..., 0], 1 / similarity.shape[1])
        return label_presence(similarity, self.presence_temperature)
