"""Knowledge-constrained optimal transport (KCOT): which region belongs to which label.

RAM (CVPR 2025), Section 3.3, Eq. (6)-(12): a cost from region-label similarities, the weight of each
region by label presence detection (LPD), a teacher's assignment that lowers the cost of present labels
(teacher knowledge transfer, TKT; in training only), and the plan by Sinkhorn iterations. The plan only
weights similarities: no gradient flows through anything here.

B images, N regions, C labels, D joint width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.ot_solver import sinkhorn

__all__ = ["KCOT", "Matching", "label_presence", "matching_cost", "teacher_assignment", "transfer_knowledge"]


class Matching(NamedTuple):
    """A solved matching and what it was solved from, named as in the paper."""

    plan: Tensor  # (B, N, C), columns sum to 1/C
    cost: Tensor  # (B, N, C), with the teacher's term in training
    mu: Tensor  # (B, N), rows sum to 1
    reg: float  # lambda 1 at test, lambda 1 + lambda 2 in training
    error: Tensor  # (B,), L1 error of the region marginal
    iterations: Tensor  # (B,)


def matching_cost(similarity: Tensor, scale: float) -> Tensor:
    """C_ij = 1 - softmax_j(scale * s_ij), Eq. (7): (B, N, C) in [0, 1].

    Args:
        similarity: (B, N, C), cosines of regions and labels.
        scale: CLIP's pre-trained logit scale, 1 / tau.
    """
    return 1 - (scale * similarity).softmax(-1)


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
    cosines = F.normalize(regions.float(), dim=-1) @ F.normalize(labels.float(), dim=-1).T
    return (sharpness * (scale * cosines).softmax(-1)).softmax(1)


def transfer_knowledge(cost: Tensor, assignment: Tensor, targets: Tensor, reg_teacher: float) -> Tensor:
    """C - lambda 2 log That, Eq. (11): the cost with the teacher's term, (B, N, C).

    That is the assignment where the label is present and the smallest entry of the whole assignment elsewhere.
    A constant along a column changes no plan (b absorbs it), so the choice of that constant only shows here.

    Args:
        cost: (B, N, C).
        assignment: (B, N, C), positive.
        targets: (B, C), 1 where the label is present.
        reg_teacher: lambda 2.
    """
    knowledge = torch.where(targets[:, None, :] > 0, assignment, assignment.min())
    return cost - reg_teacher * knowledge.log()


class KCOT(nn.Module):
    """Similarities to a plan, Eq. (6)-(12). Has no parameters.

    Args:
        scale: CLIP's pre-trained logit scale, 1 / tau of Eq. (7).
        reg: lambda 1.
        reg_teacher: lambda 2.
        presence_temperature: of Eq. (8).
        sharpness: of the teacher's softmax over regions, Eq. (9).
        max_iter: see `sinkhorn`, like the following two.
        tol: mean change of a at which the iteration stops.
        stop: "image" or "batch".
    """

    def __init__(
        self, *, scale: float, reg: float, reg_teacher: float, presence_temperature: float, sharpness: float,
        max_iter: int, tol: float, stop: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.reg, self.reg_teacher = scale, reg, reg_teacher
        self.presence_temperature, self.sharpness = presence_temperature, sharpness
        self.max_iter, self.tol, self.stop = max_iter, tol, stop

    @torch.no_grad()
    def forward(self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None) -> Matching:
        """The matching of regions and labels; with the teacher's term if `targets` are given.

        Args:
            similarity: (B, N, C), cosines of regions and labels.
            assignment: (B, N, C), what `assign` gives; with `targets` only.
            targets: (B, C), multi-hot.
        """
        cost, reg = matching_cost(similarity, self.scale), self.reg
        if targets is not None:
            cost, reg = transfer_knowledge(cost, assignment, targets, self.reg_teacher), reg + self.reg_teacher
        mu = label_presence(similarity, self.presence_temperature)
        nu = torch.full_like(similarity[:, 0], 1 / similarity.shape[-1])  # (B, C)
        solved = sinkhorn(cost, mu, nu, reg=reg, max_iter=self.max_iter, tol=self.tol, stop=self.stop)
        return Matching(solved.plan, cost, mu, reg, solved.error, solved.iterations)

    @torch.no_grad()
    def assign(self, regions: Tensor, labels: Tensor) -> Tensor:
        """The teacher's assignment (B, N, C) from its regions (B, N, D) and frozen labels (C, D)."""
        return teacher_assignment(regions, labels, scale=self.scale, sharpness=self.sharpness)
