"""What TRM-ML minimises: Eq. (6), (13) and (14).

B images, C labels, S candidates of all processes together, D width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from parallel import logsumexp, summed

__all__ = ["classification_loss", "contrastive_loss", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float, reduction: str) -> Tensor:
    """T^2/B sum_i KL(softmax(z^r_i / T) || softmax(z^q_i / T)), Eq. (6): a scalar, float32.

    The printed sum over the labels is a divergence where each side sums to 1, so probabilities are a softmax over the
    labels and not the sigmoid of Eq. (14). Neither T nor T^2 nor the mean over images is printed; they are those of the
    authors' earlier code, but for the mean: that sums over the batch, which with the printed beta would outweigh the
    classification.

    Args:
        student: (B, C), z^q, logits of the queries.
        teacher: (B, C), z^r, logits of the regions; no gradient.
        temperature: T.
        reduction: over the images: mean, or sum.
    """
    wanted, found = ((z.float() / temperature).log_softmax(-1) for z in (teacher.detach(), student))
    total = temperature**2 * summed((wanted.exp() * (wanted - found)).sum())
    return total / _images(student) if reduction == "mean" else total


def contrastive_loss(anchors: Tensor, candidates: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE from texts to what is seen, Eq. (13): a scalar, float32.

    For the anchor a of each label, P of the candidates are of this label and N of others:

        1/|P| sum over q+ in P of -log(exp(a q+ / tau) / (exp(a q+ / tau) + sum over q- in N of exp(a q- / tau)))

    Mean over the labels that have both; 0 where none has.

    Args:
        anchors: (C, D), of length 1, the same in all processes.
        candidates: (S, D), of length 1; each process has some of them.
        labels: (S,), int64, of the candidates.
        temperature: tau.
    """
    logits = anchors.float() @ candidates.float().T / temperature  # (C, S)
    matched = labels == torch.arange(len(anchors), device=labels.device)[:, None]  # (C, S)
    others = logsumexp(logits.masked_fill(matched, torch.finfo(logits.dtype).min), 1)  # (C,)
    own = logits.gather(0, labels[None])[0]  # (S,)
    each = F.softplus(others[labels] - own)
    sums, numbers = summed(torch.stack([(matched * each).sum(1), matched.sum(1).to(each.dtype)]))  # (C,) each
    valid = (numbers > 0) & (numbers < numbers.sum())
    return torch.where(valid, sums / numbers.clamp(min=1), 0).sum() / valid.sum().clamp(min=1)


def classification_loss(logits: Tensor, targets: Tensor, *, summed_loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Eq. (14), ASL, summed over the labels, mean over the images: a scalar, float32.

    The printed formula lacks the minus sign of a loss.

    Args:
        logits: (B, C).
        targets: (B, C), 1 present, 0 absent, -1 not known, which counts for nothing.
        summed_loss: ASL summed over images and labels.
    """
    return summed_loss(logits, targets) / _images(logits)


def _images(share: Tensor) -> Tensor:
    """B, of all processes."""
    return summed(share.new_tensor(float(len(share)), dtype=torch.float32))
