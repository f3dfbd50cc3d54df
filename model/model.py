"""RAM: Recover And Match (Tan et al., CVPR 2025), assembled.

images --> ImageTrunk ---+-- cls (B,D) --------------------------------------------------+
(B,3,H,W)  frozen        +-- saa (B,N,W) --> LLA: saa + sum TSS(tap, labels) --> regions  |
           + visual      +-- taps L x (B,N,W) --^        ^                     (B,N,D)    |
             prompts                                     |                        |       |
names ---> TextEncoder -----------------------> labels (C,D) -------+-------------+       |
(C)        frozen + label prompts                                   |             v       v
                                                                    |    KCOT        global logits (B,C)
targets (B,C), training only --> TKT: teacher plan (B,N,C) ---------+--> cost -> Sinkhorn -> plan (B,N,C)
                                 LPD: mu (B,N) from regions . labels              |
                                                                          local logits (B,C)
scores (B,C): from both logits          loss: MMC(global logits) and MMC(local logits)

B images, N regions, C labels, W trunk width, D joint width, L adapted blocks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk
from clip.prompts import DeepPrompts
from clip.text import TextEncoder
from model.kcot import KCOT, Matching

__all__ = ["RAM", "Labels", "ModelError", "Recognition", "TrainedParts"]


class ModelError(ValueError):
    """A setting that no model can be built from, or the trained weights of another model."""


class Labels(NamedTuple):
    """A list of candidate labels, encoded."""

    names: tuple[str, ...]
    features: Tensor  # (C, D), with label prompts, not normalised
    frozen: Tensor  # (C, D), of the frozen tower, not normalised; for the teacher


class Recognition(NamedTuple):
    """All that RAM says of a batch of images."""

    scores: Tensor  # (B, C), each row sums to 1: a ranking of the candidate labels, not probabilities of presence
    global_logits: Tensor  # (B, C)
    local_logits: Tensor  # (B, C)
    similarity: Tensor  # (B, N, C), cosines of regions and labels
    matching: Matching
    assignment: Tensor | None  # (B, N, C), the teacher's, where targets were given
    grid: tuple[int, int]  # rows and columns of the N regions


class TrainedParts(NamedTuple):
    """Trainable parameters by the module they belong to."""

    adapters: list[nn.Parameter]
    temperatures: list[nn.Parameter]
    prompts: list[nn.Parameter]


class RAM(nn.Module):
    """Region and label features from a frozen CLIP, matched by optimal transport.

    Args:
        trunk: image tower.
        text: text tower.
        adapter: LLA.
        visual_prompts: of the adapted blocks.
        label_prompts: of the last text blocks.
        kcot: the matching.
        local_temperature: initial divisor of the local logits, Eq. (14).
        global_temperature: initial divisor of the global logits.
    """

    def __init__(
        self, *, trunk: ImageTrunk, text: TextEncoder, adapter: LadderLocalAdapter, visual_prompts: DeepPrompts,
        label_prompts: DeepPrompts, kcot: KCOT, local_temperature: float, global_temperature: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.adapter, self.kcot = trunk, text, adapter, kcot
        self.visual_prompts, self.label_prompts = visual_prompts, label_prompts
        self.local_temperature = nn.Parameter(torch.tensor(local_temperature))
        self.global_temperature = nn.Parameter(torch.tensor(global_temperature))

    def encode_labels(self, names: Sequence[str]) -> Labels:
        """The candidate labels' features; in evaluation, once for each list of names."""
        return Labels(tuple(names), self.text(names, self.label_prompts()), self.text.prefix(names).plain)

    def forward(self, images: Tensor, labels: Labels, targets: Tensor | None = None) -> Recognition:
        """Which labels are present, and which regions say so.

        Args:
            images: (B, 3, H, W), normalised.
            labels: what `encode_labels` gives.
            targets: (B, C), multi-hot; switches the teacher on, Eq. (9) and (11).
        """
        state = self.trunk.stem(images, teacher=targets is not None)
        features = self.trunk.finish(state, self.visual_prompts())
        regions = self.trunk.project(self.adapter(features, labels.features))  # (B, N, D)
        teacher = None if targets is None else self.trunk.teacher_regions(state)  # (B, N, D)

        with torch.autocast(images.device.type, enabled=False):  # logits are cosines times up to 5000
            text = F.normalize(labels.features.float(), dim=-1)  # (C, D)
            similarity = F.normalize(regions.float(), dim=-1) @ text.T  # (B, N, C)
            assignment = None if teacher is None else self.kcot.assign(teacher, labels.frozen)
            matching = self.kcot(similarity.detach(), assignment, targets)

            local_logits = (matching.plan * similarity).sum(1) / self.local_temperature  # (B, C)
            global_logits = F.normalize(features.cls.float(), dim=-1) @ text.T / self.global_temperature
            scores = (local_logits.softmax(-1) + global_logits.softmax(-1)) / 2
        return Recognition(scores, global_logits, local_logits, similarity, matching, assignment, features.grid)

    def trained_parts(self) -> TrainedParts:
        """The 13 M parameters that are trained, in three groups with a learning rate each."""
        return TrainedParts(
            adapters=list(self.adapter.parameters()),
            temperatures=[self.local_temperature, self.global_temperature],
            prompts=[*self.visual_prompts.parameters(), *self.label_prompts.parameters()],
        )

    def trained_state(self) -> dict[str, Tensor]:
        """What training changes, by name: parameters and BatchNorm statistics, live and not copied."""
        frozen = ("trunk.", "text.")
        return {k: v for k, v in self.state_dict().items() if not k.startswith(frozen)}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Puts back what `trained_state` gave.

        Raises:
            ModelError: if names or shapes are not those of this model; nothing is changed then.
        """
        own = self.trained_state()
        for name in sorted(own.keys() | state.keys()):
            ours, theirs = own.get(name), state.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                sides = ["missing" if t is None else tuple(t.shape) for t in (ours, theirs)]
                raise ModelError(f"{name} is {sides[0]} in this model and {sides[1]} in the checkpoint")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def train(self, mode: bool = True) -> "RAM":
        """Switches the trained part; the frozen towers stay in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        self.text.eval()
        return self
