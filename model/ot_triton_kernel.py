"""The kernel behind `model.ot_triton`: KCOT of one image from its cosines to its plan, in one program.

Imports Triton, so that it is itself imported on use. K is computed once, where the plan will be, so that an iteration
has no exponentials; and an iteration reads K once, out of a cache: a row gives its a as soon as it is read, and with it
its share in the sums of the columns.

N regions, C labels; a tile is ROWS x COLUMNS, COLUMNS at least C.
"""

import triton
import triton.language as tl

__all__ = ["transport"]

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile(first, regions, labels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows from `first` on, which of them there are, and places of all their labels, with which of those there are."""
    rows, columns = first + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    region = rows < regions
    return rows, region, rows[:, None] * labels + columns[None, :], region[:, None] & (columns < labels)[None, :]


@triton.jit
def _kernel(
    similarity, assignment, known, least, work, mu, regions, labels, scale, reg, reg_teacher,
    TEACHER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Writes K to `work`, and each region's largest cosine to `mu`."""
    label = (tl.arange(0, COLUMNS) < labels)[None, :]
    for first in range(0, regions, ROWS):
        rows, region, place, inside = _tile(first, regions, labels, ROWS, COLUMNS)
        s = tl.where(label, tl.load(similarity + place, mask=inside, other=0.0), float("-inf"))
        best = tl.max(s, 1)
        shares = tl.exp2((s - best[:, None]) * (scale * LOG2E))
        exponent = shares / tl.sum(shares, 1)[:, None] - 1  # minus the cost, Eq. (7)
        if TEACHER:
            q = tl.load(assignment + place, mask=inside, other=1.0)
            exponent += reg_teacher * tl.log(tl.where(known[None, :], q, least))  # Eq. (11)
        tl.store(work + place, tl.exp2(exponent * (LOG2E / reg)), mask=inside)
        tl.store(mu + rows, best, mask=region)
    tl.debug_barrier()  # what some threads store, others load


@triton.jit
def _weights(mu, scaling, regions, temperature, PRESENCE: tl.constexpr, REGIONS: tl.constexpr):
    """Writes the region weights to `mu`, over the largest cosines that are there, and ones to `scaling`."""
    rows = tl.arange(0, REGIONS)
    ones = tl.full((REGIONS,), 1.0, tl.float32)
    weights = ones / regions
    if PRESENCE:
        best = tl.load(mu + rows, mask=rows < regions, other=float("-inf"))
        shares = tl.exp2((best - tl.max(best, 0)) * (LOG2E / temperature))
        weights = shares / tl.sum(shares, 0)  # Eq. (8)
    tl.debug_barrier()
    tl.store(mu + rows, weights, mask=rows < regions)
    tl.store(scaling + rows, ones, mask=rows < regions)
    tl.debug_barrier()


@triton.jit
def _iterate(
    work, mu, scaling, regions, labels, max_iter, tol, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """b, and how many iterations were taken; a is in the half of `scaling` that this number modulo 2 names."""
    label = tl.arange(0, COLUMNS) < labels
    b = tl.where(label, 1.0, 0.0)
    count = 0
    change = tl.full((), float("inf"), tl.float32)
    while (count < max_iter) & ~(change < tol * regions):  # NaN is not taken for convergence
        before, after = scaling + count % 2 * regions, scaling + (count + 1) % 2 * regions
        changes = tl.zeros((ROWS,), tl.float32)
        sums = tl.zeros((ROWS, COLUMNS), tl.float32)
        for first in range(0, regions, ROWS):
            rows, region, place, inside = _tile(first, regions, labels, ROWS, COLUMNS)
            k = tl.load(work + place, mask=inside, other=0.0)
            row_sums = tl.where(region, tl.sum(k * b[None, :], 1), 1.0)
            a = tl.load(mu + rows, mask=region, other=0.0) / row_sums
            changes += tl.abs(a - tl.load(before + rows, mask=region, other=0.0))
            tl.store(after + rows, a, mask=region)
            sums += k * a[:, None]
        b = tl.where(label, 1.0 / (labels * tl.where(label, tl.sum(sums, 0), 1.0)), 0.0)  # nu is 1 / C
        change = tl.sum(changes, 0)
        count += 1
        tl.debug_barrier()
    return b, count


@triton.jit
def transport(
    similarity,  # (B, N, C)
    assignment,  # (B, N, C), if TEACHER
    present,  # (B, C), int8, if TEACHER
    least,  # scalar, the smallest entry of all assignments, if TEACHER
    work,  # (B, N, C): K, and the plan in the end if PLAN
    pooled,  # (B, C), out, if POOLED
    mu,  # (B, N), out
    scaling,  # (B, 2, N): a, in turns with that of the iteration before
    error,  # (B,), out
    iterations,  # (B,), out
    regions, labels, scale, reg, reg_teacher, temperature, max_iter, tol,
    TEACHER: tl.constexpr, PRESENCE: tl.constexpr, PLAN: tl.constexpr, POOLED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, REGIONS: tl.constexpr,
):  # fmt: skip
    """Solves the problem of one image; see `model.ot_triton.transport`."""
    image = tl.program_id(0).to(tl.int64)
    similarity += image * regions * labels
    work += image * regions * labels
    mu += image * regions
    scaling += image * 2 * regions
    columns = tl.arange(0, COLUMNS)
    known, smallest = columns < labels, 1.0
    if TEACHER:
        assignment += image * regions * labels
        known = tl.load(present + image * labels + columns, mask=known, other=0) > 0
        smallest = tl.load(least)
    _kernel(similarity, assignment, known, smallest, work, mu, regions, labels, scale, reg, reg_teacher,
            TEACHER, ROWS, COLUMNS)  # fmt: skip
    _weights(mu, scaling, regions, temperature, PRESENCE, REGIONS)
    b, count = _iterate(work, mu, scaling, regions, labels, max_iter, tol, ROWS, COLUMNS)

    errors = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, regions, ROWS):
        rows, region, place, inside = _tile(first, regions, labels, ROWS, COLUMNS)
        a = tl.load(scaling + count % 2 * regions + rows, mask=region, other=0.0)
        moved = a[:, None] * tl.load(work + place, mask=inside, other=0.0) * b[None, :]
        errors += tl.abs(tl.sum(moved, 1) - tl.load(mu + rows, mask=region, other=0.0))
        if PLAN:
            tl.store(work + place, moved, mask=inside)
        if POOLED:
            sums += moved * tl.load(similarity + place, mask=inside, other=0.0)
    if POOLED:
        tl.store(pooled + image * labels + columns, tl.sum(sums, 0), mask=columns < labels)
    tl.store(error + image, tl.sum(errors, 0))
    tl.store(iterations + image, count)
