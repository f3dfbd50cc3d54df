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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk, TrunkFeatures, TrunkState
from clip.prompts import DeepPrompts
from clip.text import TextEncoder
from model.labels import LabelPrompts, Labels
from model.matchers import Matcher, Matching
from model.method import Group, Method, Recipe

__all__ = ["RAM", "Labels", "Recognition"]


class Recognition(NamedTuple):
    """All that RAM says of a batch of images."""

    scores: Tensor  # (B, C), each row sums to 1: a ranking of the candidate labels, not probabilities of presence
    global_logits: Tensor  # (B, C)
    local_logits: Tensor  # (B, C)
    similarity: Tensor  # (B, N, C), cosines of regions and labels
    matching: Matching
    assignment: Tensor | None  # (B, N, C), the teacher's, where targets were given and the matcher wants it
    grid: tuple[int, int]  # rows and columns of the N regions


class TrainingStem(NamedTuple):
    """What no training changes."""

    state: TrunkState  # in front of the first adapted block
    teacher: Tensor | None  # (B, N, D), the frozen CLIP's regions, where the matcher is to be taught


class RAM(Method):
    """Region and label features from a frozen CLIP, matched by optimal transport.

    Args:
        trunk: image tower.
        text: text tower.
        adapter: LLA.
        visual_prompts: of the adapted blocks.
        label_prompts: of the text tower; see `model.labels`.
        matcher: similarities to a plan, KCOT in the paper; see `model.matchers`.
        teach: the teacher's assignment from its regions and frozen labels, Eq. (9).
        loss: of logits (B, C) and targets (B, C).
        loss_weight: of each of the two losses.
        recipe: learning rates and weight decay.
        local_temperature: initial divisor of the local logits, Eq. (14).
        global_temperature: initial divisor of the global logits.
    """

    title = "RAM"
    frozen = ("trunk", "text")
    takes_unknown = True  # no part of the loss; the teacher knows nothing of them
    compiled = ("trunk.stem", "trunk.finish", "trunk.teacher_regions", "adapter.forward")
    not_averaged = frozenset({"global_temperature"})  # the release copies it

    def __init__(
        self, *, trunk: ImageTrunk, text: TextEncoder, adapter: LadderLocalAdapter, visual_prompts: DeepPrompts,
        label_prompts: LabelPrompts, matcher: Matcher, teach: Callable[[Tensor, Tensor], Tensor],
        loss: Callable[[Tensor, Tensor], Tensor], loss_weight: float, recipe: Recipe, local_temperature: float,
        global_temperature: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text, self.adapter = trunk, text, adapter
        self.visual_prompts, self.label_prompts = visual_prompts, label_prompts
        self.matcher, self.teach, self.loss, self.loss_weight = matcher, teach, loss, loss_weight
        self.recipe = recipe
        self.local_temperature = nn.Parameter(torch.tensor(local_temperature))
        self.global_temperature = nn.Parameter(torch.tensor(global_temperature))

    def encode_labels(self, names: Sequence[str]) -> Labels:
        """The candidate labels' features; in evaluation, once for each list of names."""
        return self.label_prompts.encode(self.text, names)

    def tokens(self, names: Sequence[str]) -> Tensor:
        """What the text tower reads of the names, beside the prompts: (C, context), int64, on the CPU."""
        return self.label_prompts.tokens(self.text, names)

    def forward(self, images: Tensor, labels: Labels, targets: Tensor | None = None) -> Recognition:
        """Which labels are present, and which regions say so.

        Args:
            images: (B, 3, H, W), normalised.
            labels: what `encode_labels` gives.
            targets: (B, C), 1, 0 or -1 (not known); switches the teacher on, Eq. (9) and (11).
        """
        if targets is None:
            return self.recognise(self.features(self.stem(images)), labels)
        return self.learn(self.training_stem(images), labels, targets)

    def stem(self, images: Tensor) -> TrunkState:
        """Images (B, 3, H, W) in front of the first adapted block."""
        return self.trunk.stem(images)

    def training_stem(self, images: Tensor) -> TrainingStem:
        """The same, and what the teacher says."""
        state = self.trunk.stem(images, teacher=self.matcher.needs_teacher)
        teacher = self.trunk.teacher_regions(state) if self.matcher.needs_teacher else None
        return TrainingStem(state._replace(teacher=None), teacher)

    def learn(self, stem: TrainingStem, labels: Labels, targets: Tensor) -> Recognition:
        """Which labels are present, with the teacher's help."""
        return self.recognise(self.features(stem.state), labels, stem.teacher, targets)

    def features(self, stem: TrunkState) -> TrunkFeatures:
        """What the ladder is built from, with the visual prompts."""
        return self.trunk.finish(stem, self.visual_prompts())

    def recognise(
        self, features: TrunkFeatures, labels: Labels, teacher: Tensor | None = None, targets: Tensor | None = None
    ) -> Recognition:
        """Which labels are present; many lists of labels may be asked of the same features.

        Args:
            features: of the images.
            labels: what `encode_labels` gives.
            teacher: (B, N, D), the frozen CLIP's regions, where the matcher is to be taught.
            targets: (B, C), multi-hot, in training.
        """
        regions = self.trunk.project(self.adapter(features, labels.features))  # (B, N, D)
        with torch.autocast(regions.device.type, enabled=False):  # logits are cosines times up to 5000
            text = F.normalize(labels.features.float(), dim=-1)  # (C, D)
            regions, cls = F.normalize(regions.float(), dim=-1), F.normalize(features.cls.float(), dim=-1)
            similarity = regions @ text.T  # (B, N, C)
            assignment = None if teacher is None else self.teach(teacher, labels.frozen)
            matching = self.matcher(similarity.detach(), assignment, targets)

            local_logits = (matching.plan * labels.contrast(regions, similarity)).sum(1) / self.local_temperature
            global_logits = labels.contrast(cls, cls @ text.T) / self.global_temperature  # (B, C)
            scores = (local_logits.softmax(-1) + global_logits.softmax(-1)) / 2
        return Recognition(scores, global_logits, local_logits, similarity, matching, assignment, features.grid)

    def losses(self, output: Recognition, targets: Tensor) -> dict[str, Tensor]:
        """The loss of both branches, Eq. (15)."""
        return {
            "local": self.loss_weight * self.loss(output.local_logits, targets),
            "global": self.loss_weight * self.loss(output.global_logits, targets),
        }

    def groups(self) -> list[Group]:
        """The 13 M parameters that are trained: AdamW for adapters and temperatures, SGD for the prompts."""
        lr, factor, lr_sgd, decay, decay_sgd, momentum = self.recipe
        temperatures = [self.local_temperature, self.global_temperature]
        prompts = [*self.visual_prompts.parameters(), *self.label_prompts.parameters()]
        return [
            Group("adapters", list(self.adapter.parameters()), "adamw", lr * factor, decay),
            Group("temperatures", temperatures, "adamw", lr, decay),
            Group("prompts", prompts, "sgd", lr_sgd, decay_sgd, momentum),
        ]

    def diagnostics(self, output: Recognition) -> dict[str, Tensor]:
        """The temperatures, and what the matcher says of its solution, mean over the images."""
        solved = {name: value.float().mean() for name, value in output.matching.diagnostics.items()}
        return {
            **solved, "temperature_local": self.local_temperature.detach(),
            "temperature_global": self.global_temperature.detach(),
        }  # fmt: skip
