"""The same transport problems solved by POT (Flamary et al., JMLR 2021): to check our solver, or to go on from.

POT is imported on use: it takes a second, which scripts that do without it need not wait for.

B images, N regions, C labels.
"""

import torch
from torch import Tensor, nn

from model.matchers import Matching, matching_cost
from model.ot_solver import TransportPlan

__all__ = ["Unbalanced", "solve_with_pot"]

TINY = 1e-30  # a column that took no mass at all


def solve_with_pot(cost: Tensor, mu: Tensor, nu: Tensor, *, reg: float, max_iter: int, tol: float) -> TransportPlan:
    """What `sinkhorn` solves, by POT's batched solver in the log domain, in float64; columns are updated last here too.

    Args:
        cost: (B, N, C).
        mu: (B, N), rows sum to 1.
        nu: (B, C), rows sum to 1.
        reg: weight of the entropy.
        max_iter: upper bound on iterations.
        tol: POT's own rule: all stop once the largest error of a marginal is below it.
    """
    import ot

    with torch.no_grad():
        solved = ot.solve_batch(
            cost.double(), reg, mu.double(), nu.double(), max_iter=max_iter, tol=tol, method="log_sinkhorn",
            grad="detach",
        )  # fmt: skip
        error = (solved.plan.sum(2) - mu).abs().sum(1)
        iterations = torch.full((len(cost),), solved.log["n_iter"] + 1, device=cost.device)  # POT counts from 0
        return TransportPlan(solved.plan.to(cost.dtype), error.to(cost.dtype), iterations)


class Unbalanced(nn.Module):
    """Transport with region weights that may be left at a price: POT's unbalanced Sinkhorn, image by image.

    min <T, C> + reg KL(T | mu nu^T) + relax KL(T 1 | mu)   s.t. columns of T sum to 1/C, mu_i = 1/N

    (Chizat et al., 2018.) A large `relax` is balanced transport, a small one lets every label choose for itself.

    Args:
        scale: CLIP's pre-trained logit scale, see `matching_cost`.
        reg: weight of the entropy.
        relax: price of leaving the region weights.
        max_iter: upper bound on iterations.
        tol: see POT's `sinkhorn_unbalanced`.
    """

    needs_teacher = False

    def __init__(self, *, scale: float, reg: float, relax: float, max_iter: int, tol: float) -> None:
        super().__init__()
        self.scale, self.reg, self.relax, self.max_iter, self.tol = scale, reg, relax, max_iter, tol

    @torch.no_grad()
    def forward(
        self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None  # noqa: ARG002
    ) -> Matching:  # fmt: skip
        """The plan for cosines (B, N, C)."""
        import ot

        cost = matching_cost(similarity, self.scale).double()
        mu, nu = torch.full_like(cost[0, :, 0], 1 / cost.shape[1]), torch.full_like(cost[0, 0], 1 / cost.shape[2])
        plans = [
            ot.unbalanced.sinkhorn_unbalanced(
                mu, nu, image, self.reg, (self.relax, float("inf")), numItermax=self.max_iter, stopThr=self.tol
            )
            for image in cost
        ]
        plan = torch.stack(plans)
        plan = plan / (cost.shape[2] * plan.sum(1, keepdim=True).clamp(min=TINY))  # exact columns, whatever tol is
        return Matching(
            plan.to(similarity.dtype),
            cost.to(similarity.dtype),
            mu.expand(len(cost), -1).to(similarity.dtype),
            self.reg,
        )
