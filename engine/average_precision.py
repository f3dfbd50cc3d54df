"""Average precision of each class, in the two ways that papers have, which they do not always name.

With the ranks r_1 < ... < r_n of a class's n positives and P_k = k / r_k, the precision there:
    plain          AP = mean over k of P_k                    ASL, DualCoOp, ROLE, SPLC; open vocabulary
    interpolated   AP = mean over k of max over l >= k of P_l   PASCAL VOC from 2010 on; SST, SARB and other work on
                                                              partial labels, on every data set
The second is the area under the precision that cannot fall as the recall rises, at all points; it is never less than
the first. (VOC2007's own eleven points are used by nobody here.)

I images, C classes.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["AveragePrecision", "average_precision"]

Array = np.ndarray


class AveragePrecision(NamedTuple):
    """(C,) each, in [0, 1]; nan for a class without positives."""

    plain: Array
    interpolated: Array


def average_precision(scores: Array, targets: Array) -> AveragePrecision:
    """Of scores (I, C) and targets (I, C), bool; of equal scores the lower image index ranks first."""
    plain, interpolated = (np.full(scores.shape[1], np.nan) for _ in range(2))
    columns = zip(np.ascontiguousarray(scores.T), np.ascontiguousarray(targets.T), strict=True)
    for label, (column, positive) in enumerate(columns):
        ranks = np.flatnonzero(positive[np.argsort(-column, kind="stable")]) + 1
        if len(ranks):
            precision = np.arange(1, len(ranks) + 1) / ranks
            plain[label] = np.mean(precision)
            interpolated[label] = np.mean(np.maximum.accumulate(precision[::-1]))
    return AveragePrecision(plain, interpolated)
