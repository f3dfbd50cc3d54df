"""KCOT as one Triton kernel on a GPU: cost, teacher's term, label presence and all iterations, each image in a program.

MODEL.OT_SOLVER triton puts `FusedKCOT` in the place of KCOT: the same plans up to rounding, while every image stops by
itself on the device and nothing waits for the host. What was trained with it is tested anywhere, by KCOT if need be.
The kernel is checked against KCOT through Triton's interpreter (TRITON_INTERPRET=1) and compiles for sm_75, sm_80 and
sm_90, but was not measured on a GPU, nor run on one. Triton is imported on use, since there is none for macOS and
Windows.

B images, N regions, C labels.
"""

import os
import warnings
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.kcot import KCOT
from model.matchers import Matching, MatchingError
from model.ot_solver import LARGEST_EXPONENT, sinkhorn
from parallel import least

__all__ = ["Fused", "FusedKCOT", "Teaching", "transport"]

LARGEST = 8192  # regions or labels: a row of K has to fit into the registers of a program
# 16 numbers of K for each thread: compiled for sm_80 and sm_90, next to nothing leaves the registers. Not tuned.
TILE, WARPS = 8192, 16


class Teaching(NamedTuple):
    """What the teacher's term of Eq. (11) is made of."""

    assignment: Tensor  # (B, N, C), positive
    targets: Tensor  # (B, C), 1 where the label is present
    reg: float  # lambda 2


class Fused(NamedTuple):
    """What `transport` returns."""

    plan: Tensor | None  # (B, N, C), columns sum to 1 / C
    pooled: Tensor | None  # (B, C), sum_i T_ij s_ij, the local logits of Eq. (14) before their temperature
    mu: Tensor  # (B, N), rows sum to 1
    error: Tensor  # (B,), sum over regions of |row sum - mu|
    iterations: Tensor  # (B,), int64


@torch.no_grad()
def transport(
    similarity: Tensor, *, scale: float, reg: float, max_iter: int, tol: float | None,
    presence_temperature: float | None = None, teaching: Teaching | None = None, plan: bool = True,
    pooled: bool = False,
) -> Fused:  # fmt: skip
    """What `KCOT` gives with `sinkhorn`, by one kernel in float32 and without the log domain.

    Args:
        similarity: (B, N, C), cosines; N and C up to 8192.
        scale: 1 / tau of Eq. (7).
        reg: lambda 1, and lambda 2 on top with a teacher; cost / reg has to stay below 40 or so.
        max_iter: upper bound on iterations.
        tol: an image stops when the mean over regions of |a - previous a| is below this; None: after `max_iter`.
        presence_temperature: of Eq. (8); None: every region weighs 1 / N.
        teaching: for the teacher's term, in training.
        plan: whether the plan is wanted; it is not written otherwise.
        pooled: whether its sums with the cosines are.

    Raises:
        MatchingError: if there is neither a CUDA device nor the interpreter, or no Triton.
    """
    kernel = _kernel(similarity.device)
    images, regions, labels = similarity.shape
    columns, every = _power_of_2(labels), _power_of_2(regions)
    rows = min(every, max(1, TILE // columns))
    similarity = similarity.float().contiguous()
    work = torch.empty_like(similarity)  # K, and the plan in the end
    found = Fused(
        work if plan else None, similarity.new_empty(images, labels) if pooled else None,
        similarity.new_empty(images, regions), similarity.new_empty(images),
        torch.empty(images, dtype=torch.int64, device=similarity.device),
    )  # fmt: skip
    known: tuple[Tensor | None, ...] = (None, None, None)
    if teaching is not None:
        assignment, present = teaching.assignment.float().contiguous(), (teaching.targets > 0).to(torch.int8)
        known = (assignment, present.contiguous(), least(assignment))
    with torch.cuda.device_of(similarity):
        kernel[(images,)](
            similarity, *known, work, found.pooled, found.mu, similarity.new_empty(images, 2, regions), found.error,
            found.iterations, regions, labels, scale, reg, teaching.reg if teaching else 0.0,
            presence_temperature or 1.0, max_iter, -1.0 if tol is None else tol,
            TEACHER=teaching is not None, PRESENCE=presence_temperature is not None, PLAN=plan, POOLED=pooled,
            ROWS=rows, COLUMNS=columns, REGIONS=every, num_warps=WARPS,
        )  # fmt: skip
    return found


class FusedKCOT(KCOT):
    """KCOT with all of it in one kernel; its `Matching` has no cost, which is never written.

    What the kernel does not cover is solved by KCOT in torch: float64, more than 8192 regions or labels, and a reg
    below 1/40, where the log domain begins. In evaluation mode so is everything, with a warning, where the kernel
    cannot run: the machine that tests is not always one that could train.

    Args:
        scale: see `KCOT`, as of `reg`, `reg_teacher` and `presence_temperature`.
        max_iter: see `transport`, as of `tol`.
    """

    def __init__(
        self, *, scale: float, reg: float, reg_teacher: float | None, presence_temperature: float | None,
        max_iter: int, tol: float | None,
    ) -> None:  # fmt: skip
        super().__init__(
            scale=scale, reg=reg, reg_teacher=reg_teacher, presence_temperature=presence_temperature,
            solve=partial(sinkhorn, max_iter=max_iter, tol=tol),
        )  # fmt: skip
        self.max_iter, self.tol = max_iter, tol

    @torch.no_grad()
    def forward(self, similarity: Tensor, assignment: Tensor | None = None, targets: Tensor | None = None) -> Matching:
        """The matching of regions and labels; see `KCOT.forward`.

        Raises:
            MatchingError: see `transport`; in training mode.
        """
        teaching, reg = None, self.reg
        if self.reg_teacher is not None and assignment is not None and targets is not None:
            teaching, reg = Teaching(assignment, targets, self.reg_teacher), reg + self.reg_teacher
        if similarity.dtype == torch.float64 or max(similarity.shape[1:]) > LARGEST or reg * LARGEST_EXPONENT < 1:
            return super().forward(similarity, assignment, targets)
        if not self.training and (obstacle := _obstacle(similarity.device)) is not None:
            warnings.warn(f"{obstacle}: torch solves in its place", stacklevel=1)
            return super().forward(similarity, assignment, targets)
        found = transport(
            similarity, scale=self.scale, reg=reg, max_iter=self.max_iter, tol=self.tol,
            presence_temperature=self.presence_temperature, teaching=teaching,
        )  # fmt: skip
        assert found.plan is not None
        diagnostics = {"solver_iterations": found.iterations, "solver_error": found.error}
        return Matching(found.plan, None, found.mu, reg, diagnostics)


def _kernel(device: torch.device) -> Any:
    """The kernel, if it can run there."""
    if (obstacle := _obstacle(device)) is not None:
        raise MatchingError(f"{obstacle}: MODEL.OT_SOLVER sinkhorn solves the same problems without it")
    from model.ot_triton_kernel import transport as kernel

    return kernel


def _obstacle(device: torch.device) -> str | None:
    """What keeps the kernel from running there."""
    if find_spec("triton") is None:
        return "MODEL.OT_SOLVER triton needs the package triton, which is not installed here"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"MODEL.OT_SOLVER triton runs on CUDA devices, not on {device.type}"
    return None


def _power_of_2(size: int) -> int:
    """The smallest that is not less."""
    return 1 << (size - 1).bit_length()
