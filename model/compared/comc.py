"""CoMC: labels classified by what sentences teach, no image (Liu et al., ICML 2024; github.com/yic20/CoMC).

    training  sentence --> frozen text tower --> x / |x| + noise --> W x   (B, C), ranking loss, Eq. (20) of RAM
    testing   image --> frozen image tower --> x / |x|, of the image and of its regions
              x' = normalise(softmax(s x T^T) T)           into the space of texts, every position by itself
              score = (W y + max over regions of W y) / 2,  y = (1 - mix) x + mix x'

W (C, D) is one linear layer without bias; T (C, D) are the labels' features over ImageNet's templates; s is CLIP's
scale. Every label that a sentence does not name is absent from it.

**The names of all labels are known in training, those of the unseen ones too**, as in the original, whose sentences
name them. No image is: those of a training step, and their targets, are ignored.

Deviations from the official code: its 40,000 sentences were written by a language model about one to five labels; here
they are the template around one to five labels, drawn by SOLVER.SEED. A step draws them with replacement, and there are
as many steps as batches of images. The tower is a ViT and not a ResNet-50, so regions are `ImageTrunk.dense_features`
and the global feature is CLIP's own. How the official T was made is not told.

B sentences of a step or images, S sentences, N regions, C labels, D joint width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.image import ImageTrunk
from clip.text import TextEncoder
from model.fixed_labels import FixedLabelsMethod
from model.method import Group
from parallel import own_share

__all__ = ["Classified", "CoMC", "Corpus", "drawn_sentences", "in_words", "single_sentences"]

MOST_LABELS = 5  # of a sentence
COPIES = 9  # of the plain sentence about one label beside ImageNet's

Sentence = tuple[str, list[int]]  # and the labels that it names


class Corpus(NamedTuple):
    """Sentences as the classifier sees them."""

    features: Tensor  # (S, D), normalised
    targets: Tensor  # (S, C), boolean, True where a label is named


class Classified(NamedTuple):
    """What CoMC says of images, or in training of sentences."""

    scores: Tensor  # (B, C)
    targets: Tensor | None = None  # (B, C), of the sentences


class CoMC(FixedLabelsMethod):
    """A linear classifier of labels, trained on text features and used on image features.

    Args:
        trunk: image tower, for images in the CLIP's own normalisation.
        text: text tower; its template makes the sentences.
        scale: CLIP's logit scale.
        labels: all that will be asked for, seen and unseen.
        templates: of the single-label sentences beside the plain one, and of T.
        sentences: how many with one to five labels.
        seed: of those sentences.
        batch: sentences of a training step.
        noise: standard deviation of what is added to each coordinate of a sentence.
        mix: weight of x'.
        loss: of logits (B, C) and targets (B, C).
        lr: learning rate.
        weight_decay: of the optimiser.
    """

    title = "CoMC"
    frozen = ("trunk", "text")
    takes_unknown = True  # targets are not read

    def __init__(
        self, *, trunk: ImageTrunk, text: TextEncoder, scale: float, labels: Sequence[str], templates: Sequence[str],
        sentences: int, seed: int, batch: int, noise: float, mix: float, loss: Callable[[Tensor, Tensor], Tensor],
        lr: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__(labels)
        self.trunk, self.text, self.scale, self.loss = trunk, text, scale, loss
        self.templates, self.sentences, self.seed = tuple(templates), sentences, seed
        self.batch, self.noise, self.mix, self.lr, self.weight_decay = batch, noise, mix, lr, weight_decay
        self.classifier = nn.Linear(text.joint_width, len(labels), bias=False)

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """The rows of the classifier, (C,).

        Raises:
            ModelError: if a label has none.
        """
        return self.rows(names)

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Classified:
        """Scores (B, C) of images (B, 3, H, W); with `targets`, logits of sentences in their place."""
        if targets is not None:
            return self._classified_sentences()
        features, regions = self.trunk.dense_features(images)
        with torch.autocast(images.device.type, enabled=False):
            weight = self.classifier.weight[labels]  # (C, D)
            of_image = F.linear(self._as_text(features.float()), weight)
            of_regions = F.linear(self._as_text(regions.float()), weight)  # (B, N, C)
            return Classified((of_image + of_regions.amax(1)) / 2)

    def losses(self, output: Classified, targets: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """The loss of the sentences."""
        assert output.targets is not None, "images are no sentences"
        return {"sentences": self.loss(output.scores, output.targets)}

    def groups(self) -> list[Group]:
        """The classifier."""
        return [Group("classifier", list(self.classifier.parameters()), "adam", self.lr, self.weight_decay)]

    def _classified_sentences(self) -> Classified:
        features, targets = self.corpus
        drawn = torch.randint(len(features), (self.batch,)).to(features.device)  # by the state that checkpoints keep
        with torch.autocast(features.device.type, enabled=False):
            noisy = features[drawn] + self.noise * torch.randn_like(features[drawn])
            return Classified(self.classifier(own_share(noisy)), own_share(targets[drawn]))

    def _as_text(self, features: Tensor) -> Tensor:
        """y (..., D) of features (..., D), not normalised."""
        x = F.normalize(features, dim=-1)
        projected = F.normalize((self.scale * x @ self.bank.T).softmax(-1) @ self.bank, dim=-1)
        return (1 - self.mix) * x + self.mix * projected

    @cached_property
    def bank(self) -> Tensor:
        """T (C, D) of all labels, normalised."""
        return self.text.averaged(self.labels, self.templates)

    @cached_property
    def corpus(self) -> Corpus:
        """What training draws from; encoded once, when the first step asks for it."""
        plain = self.text.template
        told = [
            *drawn_sentences(self.labels, template=plain, count=self.sentences, seed=self.seed),
            *single_sentences(self.labels, self.text.texts, templates=[plain] * COPIES + list(self.templates)),
        ]
        targets = torch.zeros(len(told), len(self.labels), dtype=torch.bool)
        for sentence, (_, named) in enumerate(told):
            targets[sentence, named] = True
        features = F.normalize(self.text.features([text for text, _ in told]), dim=-1)
        return Corpus(features, targets.to(features.device))


def drawn_sentences(labels: Sequence[str], *, template: str, count: int, seed: int) -> Iterator[Sentence]:
    """So many sentences, each about one to five different labels in any order, every number as likely."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        size = int(torch.randint(1, min(MOST_LABELS, len(labels)) + 1, (), generator=generator))
        named = torch.randperm(len(labels), generator=generator)[:size].tolist()
        yield template.format(in_words([labels[index] for index in named])), named


def single_sentences(
    labels: Sequence[str], texts: Mapping[str, str], *, templates: Sequence[str]
) -> Iterator[Sentence]:  # fmt: skip
    """Each label in each template; a label with a text of its own has that as often."""
    for index, label in enumerate(labels):
        for template in templates:
            yield texts.get(label) or template.format(label), [index]


def in_words(names: Sequence[str]) -> str:
    """The names as a list in a sentence: "dog", "dog and cat", "dog, cat and tree"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
