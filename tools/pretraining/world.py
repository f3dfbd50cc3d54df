"""What a world gives its pre-training: labels, templates, images with what their captions name, a validation."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

__all__ = ["Step", "World"]


class Step(NamedTuple):
    """What one step of the training compares: images with labels.

    `images` is (B, 3, H, W), normalised; `asked` (C,) the labels' positions among the world's; `named` (B, C), 1 where
    the caption of an image names a label. `corner` is for images smaller than the model's: row and column, among the
    model's patches, of their first one.
    """

    images: Tensor
    asked: Tensor
    named: Tensor
    corner: tuple[int, int] = (0, 0)


class World(Protocol):
    """A world whose scenes a CLIP is pre-trained on."""

    architecture: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    batch: int  # images a step
    steps: int
    rate: float  # the peak of the learning rate
    warmup: int  # steps until it is reached
    text_parts: int  # in which the texts of a step are encoded, shorter ones in front, which saves their padding

    def optimisers(self, model: Any) -> list[Optimizer]:
        """What updates the model, of `tools.pretraining.optimisers`."""

    def step(self, number: int, steps: int, batch: int, seed: int) -> Step:
        """Step `number` of `steps`, the same for the same arguments."""

    def zero_shot(self, model: Any) -> dict[str, float]:
        """Of validation scenes, in percent, for the log."""
