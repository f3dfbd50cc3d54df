"""RAM's label side: names to the features that images are compared with.

RAM prompts the last blocks of the text tower (Eq. (2)). Table 7 puts the prompts of other methods in their place and
leaves everything else as it is; MODEL.LABEL_PROMPTING chooses:

    deep      t_j, with prompts in the last blocks                 RAM
    coop      t_j, behind one learned context                      "CoOp + RAM"
    dualcoop  t+_j and t-_j, behind a positive and a negative one  "DualCoOp* + RAM"

With a pair, the plan and TSS follow the positive texts and logits are differences, P(t+_j) - P(t-_j), with one plan for
both; the paper does not say how, and neither how long contexts are (`MODEL.CONTEXT.COUNT`).

C labels, D joint width.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from clip.contexts import Context
from clip.prompts import DeepPrompts
from clip.text import TextEncoder

__all__ = ["ContextPrompts", "DeepLabelPrompts", "DualContextPrompts", "LabelPrompts", "Labels"]


class Labels(NamedTuple):
    """A list of candidate labels, encoded."""

    names: tuple[str, ...]
    features: Tensor  # (C, D), with label prompts, not normalised
    frozen: Tensor  # (C, D), of the frozen tower, not normalised; for the teacher
    negative: Tensor | None = None  # (C, D), of texts that say a label is absent, not normalised; None: there are none

    def contrast(self, features: Tensor, cosines: Tensor) -> Tensor:
        """What logits are made of, (..., C): the cosines, less those with the negative texts where there are any.

        Args:
            features: (..., D), normalised, float32.
            cosines: (..., C), of these features and the labels'.
        """
        if self.negative is None:
            return cosines
        return cosines - features @ F.normalize(self.negative.float(), dim=-1).T


class LabelPrompts(Protocol):
    """What RAM asks of its label side; it is a module too.

    `has_negatives` says whether labels have negative texts.
    """

    has_negatives: bool

    def encode(self, text: TextEncoder, names: Sequence[str]) -> Labels:
        """The labels, for gradients to reach what is trained here."""

    def tokens(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """What the text tower reads of the names: (C, context), int64, on the CPU."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What is trained."""


class DeepLabelPrompts(DeepPrompts):
    """Prompts of the last text blocks, Eq. (2); with a count of 0 the labels are the frozen tower's."""

    has_negatives = False

    def encode(self, text: TextEncoder, names: Sequence[str]) -> Labels:
        """The labels in their template, with the prompts."""
        return Labels(tuple(names), text(names, self()), text.prefix(names).plain)

    def tokens(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """The template filled with the names, (C, context)."""
        return text.tokens(names)


class ContextPrompts(nn.Module):
    """CoOp's prompts: one context for all labels, in the place of the template.

    Args:
        context: learned.
    """

    has_negatives = False

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def encode(self, text: TextEncoder, names: Sequence[str]) -> Labels:
        """The labels behind the context."""
        return Labels(tuple(names), self.context(text, names), text.prefix(names).plain)

    def tokens(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """What stands behind the context, (C, context)."""
        return text.bare_tokens(names)


class DualContextPrompts(nn.Module):
    """DualCoOp's prompts: a context that says a label is present, and one that says it is absent.

    Args:
        positive: learned.
        negative: learned.
    """

    has_negatives = True

    def __init__(self, positive: Context, negative: Context) -> None:
        super().__init__()
        self.positive, self.negative = positive, negative

    def encode(self, text: TextEncoder, names: Sequence[str]) -> Labels:
        """The labels behind both contexts."""
        frozen = text.prefix(names).plain
        return Labels(tuple(names), self.positive(text, names), frozen, self.negative(text, names))

    def tokens(self, text: TextEncoder, names: Sequence[str]) -> Tensor:
        """What stands behind both contexts, (C, context)."""
        return text.bare_tokens(names)
