"""Ranking losses: every present label above every absent one by a margin (RAM, Eq. (20); Gong et al., ICLR 2014).

Both sum the hinges max(0, 1 + P_k - P_i) over the pairs of a present label i and an absent label k of an image. The
paper leaves open what the sum is divided by; they differ in that. Labels that are not known are in no pair.

B images, C labels, S present labels of all images together; means are over the images of all processes.
"""

import torch
from torch import Tensor

from parallel import anywhere, mean, summed

__all__ = ["normalised_ranking_loss", "rankable", "ranking_loss"]


def ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the images of sum over i in Pos, k in Neg of max(0, 1 + P_k - P_i), Eq. (20); a scalar, float32.

    As in CoMC, nothing but the mean over images is taken; images without a pair count 0.

    Args:
        logits: (B, C), divided by their temperature.
        targets: (B, C), 1 where the label is present, 0 where it is absent, -1 where that is not known.
    """
    hinges, _ = _hinges(logits, targets)
    total, images = summed(torch.stack([hinges.sum(), hinges.new_tensor(len(logits))]))
    return total / images


def normalised_ranking_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The same with the sum of each image divided by its number of violated pairs; a scalar, float32.

    (1/B) sum_b [sum over i in Pos, k in Neg of max(0, 1 + P_k - P_i)] / (|{(i, k): 1 + P_k - P_i > 0}| + 1e-8)

    as in BiAM and MKT. The count carries no gradient; images without a violated pair count 0. Arguments as in
    `ranking_loss`; the targets 1, 0 and -1 are written +1, -1 and 0 there.
    """
    hinges, image = _hinges(logits, targets)
    none = hinges.new_zeros(len(logits))
    sums = none.index_add(0, image, hinges.sum(1))  # (B,)
    violated = none.index_add(0, image, (hinges > 0).sum(1).to(none.dtype))
    return mean(sums / (violated + 1e-8))


def rankable(targets: Tensor) -> Tensor:
    """Which images have something to rank: (B,), bool, true where a label is present.

    All of them where no image has a present label, since a batch cannot be empty.

    Args:
        targets: (B, C), as in `ranking_loss`.
    """
    present = (targets == 1).any(1)
    return present | ~anywhere(present)


def _hinges(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """max(0, 1 + P_k - P_i) of every present label i: (S, C), 0 where k is not absent; and its image, (S,).

    (S, C) and not (B, C, C): images have few of many labels.
    """
    logits = logits.float()
    image, present = (targets == 1).nonzero(as_tuple=True)  # host-device sync
    hinges = (1 + logits[image] - logits[image, present][:, None]).relu()
    return torch.where(targets[image] == 0, hinges, 0), image
