"""RAM with peaks: a third branch trains the regions that a label is told by.

How present a label is shows in its closest regions: a probability rests on them (`tagging/evidence.py`). The losses of
RAM see them in averages only, over the plan, which carries no gradient, and over the whole image. The third branch is
the soft maximum of a label's cosines over the regions,

    P^p_j = log sum_i exp(kappa s_ij) / (kappa tau)

trained by the same loss as the other two: gradients go to the closest regions of labels that are present, and of those
that are not but look so. Nothing else is added, neither parameters nor a pass of a tower; docs/probabilities.md holds
what was measured, also of what did not help. Not from the paper.

B images, N regions, C labels.
"""

from typing import Any

from torch import Tensor

from clip.image import TrunkFeatures
from model.model import RAM, Labels, Recognition

__all__ = ["PeakRAM"]


class PeakRAM(RAM):
    """RAM with the third branch in its losses and its scores.

    Args:
        sharpness: kappa; of large ones the maximum is left.
        temperature: tau, not trained.
        others: as `RAM` takes them.
    """

    title = "RAM with peaks"

    def __init__(self, *, sharpness: float, temperature: float, **others: Any) -> None:
        super().__init__(**others)
        self.sharpness, self.temperature = sharpness, temperature

    def peak_logits(self, similarity: Tensor) -> Tensor:
        """P^p, (B, C), float32, of cosines (B, N, C)."""
        return (self.sharpness * similarity.float()).logsumexp(1) / (self.sharpness * self.temperature)

    def recognise(
        self, features: TrunkFeatures, labels: Labels, teacher: Tensor | None = None, targets: Tensor | None = None
    ) -> Recognition:
        """As `RAM.recognise`; scores are the mean of three softmaxes over the labels."""
        found = super().recognise(features, labels, teacher, targets)
        return found._replace(scores=(2 * found.scores + self.peak_logits(found.similarity).softmax(-1)) / 3)

    def losses(self, output: Recognition, targets: Tensor) -> dict[str, Tensor]:
        """The loss of all three branches."""
        peak = self.loss_weight * self.loss(self.peak_logits(output.similarity), targets)
        return {**super().losses(output, targets), "peak": peak}
