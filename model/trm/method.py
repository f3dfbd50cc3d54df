"""TRM-ML: labels matched to regions, with labels that are not known (Ma et al., ACM MM 2024, arXiv 2407.18520).

    images --> trunk --> f (B, N, D) -----> decoder --> energies (B, C, N) --> regions f^r (B, C, D) --+
    (frozen)                                   |                                                      |
                                               +-----> query-level features F^q (B, C, D) ----+        |
    names --> positive and negative context of each label's own --> text --> g+, g- (C, D) ---+--------+
                                                                   (frozen)                   v        v
                                                                                   z^q (B, C)   z^r (B, C), the score

    L = L_cls(z^q) + alpha L_cls(z^r) + beta KL(z^r || z^q) + gamma InfoNCE(g+, f^r)                    Eq. (15)

Where targets are not known, L_cls takes pseudo-labels once there are some: regions are compared with prototypes of each
label, from a memory bank and from the texts that a first stage has learned. There are two ways to have that stage:

* a training of its own, with MODEL.TRM.PSEUDO_LABELS none, which SOLVER.INIT of the second one names, as in the paper;
* the first MODEL.TRM.PSEUDO_START epochs of the one training, after which its texts at that moment are the prototypes.

The authors have published no code. What the paper leaves open is a key of MODEL.TRM; what its formulas contradict each
other in is told where it is computed: `model.trm.pseudo_labels` for Eq. (9)-(11), `model.trm.regions` for Eq. (3).

The paper's towers are ResNets, whose regions are the value and output projections of the attention pool at every
position. Of a ViT they are the patches behind a last block without query-key attention; either by `clip.trunk`.

B images, N regions, C labels, D joint width.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.contexts import Context
from clip.text import TextEncoder
from clip.trunk import Trunk
from model.fixed_labels import FixedLabelsMethod
from model.method import Group, ModelError
from model.trm.category_prototypes import CategoryPrototypes, Judgement, undecided
from model.trm.matching import matching
from model.trm.objective import Learned, Objective
from model.trm.prototypes import Seen
from model.trm.pseudo_labels import UNKNOWN, completed
from model.trm.regions import Asked, RegionDecoder, grid_of, region_features, sine_positions
from parallel import own_share

__all__ = ["TRMML", "TextPair", "TextRegions"]


class TextPair(NamedTuple):
    """Labels behind their contexts."""

    rows: Tensor  # (C,), int64, which of the labels of the method
    positive: Tensor  # (C, D), g+, not normalised
    negative: Tensor  # (C, D), g-, not normalised


class TextRegions(NamedTuple):
    """What TRM-ML says of a batch of images."""

    scores: Tensor  # (B, C), z^r: logits, each label for itself
    energies: Tensor  # (B, C, N), regions before their sigmoid
    learned: Learned | None = None  # where targets were given


class TRMML(FixedLabelsMethod):
    """TRM-ML for a fixed list of labels.

    Args:
        trunk: image tower.
        text: text tower.
        labels: of the training, which are all that can be asked for.
        positive: contexts of the labels, trained.
        negative: likewise, for what says that a label is absent.
        decoder: to regions, trained.
        prototypes: what pseudo-labels are made by.
        objective: the losses.
        scale: exp(theta) of Eq. (1) at the beginning, trained.
        unknown: what becomes of unknown labels without pseudo-labels, see `model.trm.pseudo_labels.completed`.
        pseudo_start: epochs before the first pseudo-labels, 1 or more.
        continued: a training takes over all that SOLVER.INIT has trained, not only its texts as prototypes.
        lr: of AdamW.
        weight_decay: of all that is trained.
    """

    title = "TRM-ML"
    frozen = ("trunk", "text")
    takes_unknown = True

    def __init__(
        self, *, trunk: Trunk, text: TextEncoder, labels: Sequence[str], positive: Context, negative: Context,
        decoder: RegionDecoder, prototypes: CategoryPrototypes, objective: Objective, scale: float, unknown: str,
        pseudo_start: int, continued: bool, lr: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__(labels)
        self.trunk, self.text, self.positive, self.negative = trunk, text, positive, negative
        self.decoder, self.prototypes, self.objective = decoder, prototypes, objective
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.unknown, self.pseudo_start, self.continued = unknown, pseudo_start, continued
        self.lr, self.weight_decay = lr, weight_decay
        self.not_averaged = frozenset(f"prototypes.{name}" for name, _ in prototypes.named_buffers())
        self.judges = False  # whether this epoch has pseudo-labels

    def encode_labels(self, names: Sequence[str]) -> TextPair:
        """The names behind their contexts.

        Raises:
            ModelError: if a label has none, or not all are there in training.
        """
        rows = self.rows(names)
        if self.training and tuple(names) != self.labels:
            raise ModelError(f"{self.title} trains all of its {len(self.labels)} labels together, not {len(names)}")
        return TextPair(rows, *(context(self.text, self.labels, rows) for context in (self.positive, self.negative)))

    def forward(self, images: Tensor, labels: TextPair, targets: Tensor | None = None) -> TextRegions:
        """Scores of images (B, 3, H, W); with targets as `learn`."""
        return self.learn(self.stem(images), labels, targets)

    def stem(self, images: Tensor) -> Tensor:
        """f (B, rows, columns, D) of the frozen tower, not normalised."""
        features = self.trunk.dense_features(images).regions  # (B, N, D)
        return features.unflatten(1, grid_of(features.shape[1], *images.shape[2:]))

    def recognise(self, features: Tensor, labels: TextPair) -> TextRegions:
        """Scores of images by what `stem` gives."""
        return self.learn(features, labels)

    def learn(self, stem: Tensor, labels: TextPair, targets: Tensor | None = None) -> TextRegions:
        """Scores; with targets, what losses are made of, and in training what is remembered."""
        features = stem.flatten(1, 2)  # (B, N, D)
        positions = sine_positions(*stem.shape[1:]).to(features)
        asked = self.decoder(features, positions, labels.rows)
        regions = region_features(asked.energies, features)
        logits = self._matched(regions, labels)
        if targets is None:
            return TextRegions(logits, asked.energies)
        candidates = self._candidates(regions, targets)  # before the bank takes in the same images
        pseudo, judged = self._estimated(regions, asked, features, labels, targets)
        return TextRegions(logits, asked.energies, Learned(
            query_logits=self._matched(self.decoder.features(asked, features), labels),
            targets=completed(targets, pseudo, judged, unknown=self.unknown),
            unknown=targets == UNKNOWN,
            pseudo=pseudo,
            anchors=F.normalize(labels.positive.float(), dim=-1),
            candidates=candidates,
        ))  # fmt: skip

    def losses(self, output: TextRegions, targets: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - completed in forward
        """The terms of Eq. (15)."""
        assert output.learned is not None, "there were no targets"
        return self.objective(output.scores, output.learned)

    def begin_epoch(self, epoch: int) -> None:
        """From the epoch behind `pseudo_start` on there are pseudo-labels, and text prototypes stand still."""
        self.judges = bool(self.prototypes.kinds) and epoch > self.pseudo_start
        if self.judges and not self.prototypes.texts_fixed:  # host-device sync
            self._fix_texts()

    def begin_with(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the texts of a first stage as prototypes, and nothing else unless the training is `continued`."""
        own = {name: value.clone() for name, value in self.trained_state().items()}
        self.load_trained_state(state)
        self._fix_texts()
        if not self.continued:
            fixed = ("prototypes.texts", "prototypes.texts_fixed")
            self.load_trained_state(own | {name: self.get_buffer(name) for name in fixed})

    def groups(self) -> list[Group]:
        """All that is trained, alike."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [Group("trained", trained, "adamw", self.lr, self.weight_decay)]

    def diagnostics(self, output: TextRegions) -> dict[str, Tensor]:
        """Shares: of unknown labels with either pseudo-label; of labels with full queues, with ordered thresholds."""
        assert output.learned is not None, "there were no targets"
        unknown, pseudo = output.learned.unknown, output.learned.pseudo
        present, absent = (((pseudo == value) & unknown).sum() / unknown.sum().clamp(min=1) for value in (1, 0))
        full, ordered = (which.float().mean() for which in (self.prototypes.bank.full, self.prototypes.ordered))
        return {"pseudo_present": present, "pseudo_absent": absent, "full_queues": full, "ordered_thresholds": ordered}

    def _matched(self, features: Tensor, labels: TextPair) -> Tensor:
        return matching(features, labels.positive, labels.negative, self.log_scale)

    def _candidates(self, regions: Tensor, targets: Tensor) -> Seen:
        """What Eq. (13) compares texts with: regions of known labels and what full queues hold, of length 1.

        Regions are sums over an image and a queue holds single positions; length 1 makes them alike for the projection.
        """
        image, label = (targets == 1).nonzero(as_tuple=True)  # host-device sync
        held = self.prototypes.bank.held()
        vectors = torch.cat([F.normalize(regions[image, label], dim=-1), own_share(held.vectors)])
        return Seen(vectors, torch.cat([label, own_share(held.labels)]))

    def _estimated(
        self, regions: Tensor, asked: Asked, features: Tensor, labels: TextPair, targets: Tensor
    ) -> Judgement:
        """Pseudo-labels by prototypes and thresholds as they stand, which in training then learn from the batch."""
        alike = self.prototypes.alike(regions, labels.positive)
        judgement = self.prototypes.judge(alike) if self.judges else undecided(targets)
        if self.training:
            self.prototypes.learn(alike, self._assumed(targets))
            self.prototypes.remember(asked.energies, features, targets)
        return judgement

    def _assumed(self, targets: Tensor) -> Tensor:
        """What thresholds take as known: where no image names an absent label, what it does not name is absent."""
        return targets if self.unknown == "ignored" else torch.where(targets == UNKNOWN, 0, targets)

    @torch.no_grad()
    def _fix_texts(self) -> None:
        self.prototypes.fix_texts(self.positive(self.text, self.labels))
