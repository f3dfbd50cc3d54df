"""MKT: multi-modal knowledge transfer from CLIP, in two stages (He et al., AAAI 2023, arXiv 2207.01887).

Patches and the class token both pass CLIP's last LayerNorm and projection; with regions x_i, global feature g, label
features t_j, none of them normalised:

    l_j = mean of the k highest <x_i, t_j> over regions i,   o_j = <g, t_j>,   score = (l / |l| + o / |o|) / 2

where the norms run over the labels that are asked for, so that scores depend on which these are. The loss is the
normalised ranking loss of images that have a present label; the others are taken out of the batch first.

    Stage 1 trains the image tower's last blocks, last LayerNorm and projection, with the L1 distance of g to what the
            frozen CLIP makes of the same image as a second loss. A block learns at 0.65 times the rate of what follows.
    Stage 2 keeps that image tower and trains the token embeddings of the text "There is a {} in the scene" but for
            those of the label's name, by the ranking loss alone.

What is trained in either stage is in the checkpoint of both: stage 2 begins with a run of stage 1 (SOLVER.INIT), and
either checkpoint is tested. In stage 1 the text is the frozen CLIP's.

Where the official code differs:

* Its table of token embeddings is trained as a whole, but then read for the template's words alone: the embeddings of
  names are copies of the frozen ones. Here only the former are parameters; nothing that is computed changes.
* Stage 1 reads label features from a file that was not published; here they are those that stage 2 begins with.
* It computes the frozen CLIP's blocks in front of those that are trained twice, here once.

B images, N regions, C labels, W width of the image tower, D joint width.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from clip.blocks import run_block
from clip.image import ImageTrunk, TrunkState
from clip.text import TextEncoder
from loss.ranking_loss import normalised_ranking_loss, rankable
from model.compared.template_words import TemplateWords
from model.method import Group, Method, ModelError
from parallel import mean

__all__ = ["MKT", "Transfer", "VisionTail", "transfer_scores"]


def transfer_scores(regions: Tensor, cls: Tensor, labels: Tensor, *, top_k: int) -> tuple[Tensor, Tensor]:
    """Local and global scores (B, C), each row of length 1; their mean is the score. In float32.

    Args:
        regions: (B, N, D), not normalised.
        cls: (B, D), not normalised.
        labels: (C, D), not normalised.
        top_k: regions that the local score of a label is the mean of, at most N.
    """
    with torch.autocast(regions.device.type, enabled=False):  # products are not scaled
        regions, cls, labels = regions.float(), cls.float(), labels.float()
        local = (regions @ labels.T).topk(top_k, dim=1).values.mean(1)
        return F.normalize(local, dim=-1), F.normalize(cls @ labels.T, dim=-1)


class VisionTail(nn.Module):
    """Copies of an image tower's last blocks, last LayerNorm and projection, to be trained.

    Args:
        visual: open_clip's `VisionTransformer`, which is not changed.
        count: of blocks, 1 or more.
    """

    def __init__(self, visual: Any, count: int) -> None:
        super().__init__()
        self.first = len(visual.transformer.resblocks) - count  # 0-based index of the first copied block
        self.blocks = copy.deepcopy(visual.transformer.resblocks[self.first :])
        self.ln_post = copy.deepcopy(visual.ln_post)
        self.proj = nn.Parameter(visual.proj.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """All tokens in the joint space, (B, 1 + N, D), class token first; x (B, 1 + N, W) enters the first block."""
        for block in self.blocks:
            x = run_block(block, x)
        return self.ln_post(x) @ self.proj

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by name, of what follows all blocks, then of each block, the last one first."""
        numbered = list(enumerate(self.blocks, start=self.first))
        blocks = {f"block_{index}": list(block.parameters()) for index, block in reversed(numbered)}
        return {"projection": [*self.ln_post.parameters(), self.proj], **blocks}


class Transfer(NamedTuple):
    """What MKT says of a batch; in training of the images that are `kept`."""

    scores: Tensor  # (B, C)
    local: Tensor  # (B, C), rows of length 1
    overall: Tensor  # (B, C), rows of length 1
    cls: Tensor  # (B, D), not normalised
    teacher: Tensor | None  # (B, D), the frozen CLIP's, in training of stage 1
    kept: Tensor | None  # (B,), bool: images of the batch that the loss is taken of, where targets were given


class TrainingStem(NamedTuple):
    """What no training changes."""

    x: Tensor  # (B, 1 + N, W), in front of the tail
    teacher: Tensor | None  # (B, D), the frozen global features, in stage 1


class MKT(Method):
    """MKT on a frozen CLIP, of which what is trained is copied.

    Args:
        trunk: image tower; its first adapted block is the first of the tail's.
        text: text tower.
        tail: copies of the trunk's last blocks.
        words: embeddings of the template of `text`.
        stage: 1 trains the tail, 2 the words.
        top_k: regions that a local score is the mean of.
        distillation: weight of the L1 loss of stage 1.
        lr: highest learning rate.
        layer_decay: factor of the rate from one block to the block before it.
        weight_decay: of AdamW; of matrices alone in stage 1.
    """

    title = "MKT"
    frozen = ("trunk", "text")
    takes_unknown = True

    def __init__(
        self, *, trunk: ImageTrunk, text: TextEncoder, tail: VisionTail, words: TemplateWords, stage: int, top_k: int,
        distillation: float, lr: float, layer_decay: float, weight_decay: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.trunk, self.text = trunk, text
        self.tail, self.words = tail.requires_grad_(stage == 1), words.requires_grad_(stage == 2)
        self.stage, self.top_k, self.distillation = stage, top_k, distillation
        self.lr, self.layer_decay, self.weight_decay = lr, layer_decay, weight_decay

    def encode_labels(self, names: Sequence[str]) -> Tensor:
        """Label features (C, D), not normalised: the frozen CLIP's in stage 1."""
        return self.text.prefix(names).plain if self.stage == 1 else self.words(self.text, names)

    def forward(self, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Transfer:
        """Scores of images (B, 3, H, W); with targets, of those that have a present label."""
        if targets is None:
            return self.recognise(self.features(self.stem(images)), labels)
        kept = rankable(targets)
        return self._taught(self.training_stem(images[kept]), labels, kept)

    def stem(self, images: Tensor) -> TrunkState:
        """Images (B, 3, H, W) in front of the tail."""
        return self.trunk.stem(images)

    @torch.no_grad()
    def training_stem(self, images: Tensor) -> TrainingStem:
        """What the tail is given, and in stage 1 the frozen global features."""
        state = self.stem(images)
        return TrainingStem(state.x, self.trunk.finish(state, {}).cls if self.stage == 1 else None)

    def learn(self, stem: TrainingStem, labels: Tensor, targets: Tensor) -> Transfer:
        """Scores of the images that have a present label."""
        kept = rankable(targets)
        return self._taught(tree_map_only(Tensor, lambda part: part[kept], stem), labels, kept)

    def features(self, stem: TrunkState) -> Tensor:
        """What the tail makes of them, (B, 1 + N, D), not normalised."""
        return self.tail(stem.x)

    def recognise(self, features: Tensor, labels: Tensor) -> Transfer:
        """Scores of images by these features."""
        cls = features[:, 0]
        local, overall = transfer_scores(features[:, 1:], cls, labels, top_k=self.top_k)
        return Transfer((local + overall) / 2, local, overall, cls, None, None)

    def _taught(self, stem: TrainingStem, labels: Tensor, kept: Tensor) -> Transfer:
        """Scores of images of a batch, those that are `kept`, beside what the teacher says of them."""
        found = self.recognise(self.tail(stem.x), labels)
        return found._replace(teacher=stem.teacher, kept=kept)

    def losses(self, output: Transfer, targets: Tensor) -> dict[str, Tensor]:
        """The normalised ranking loss and, in stage 1, the mean absolute difference to the frozen global features."""
        ranking = normalised_ranking_loss(output.scores, targets if output.kept is None else targets[output.kept])
        if output.teacher is None:
            return {"ranking": ranking}
        distance = mean((output.cls.float() - output.teacher.float()).abs())
        return {"ranking": ranking, "distillation": self.distillation * distance}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `trained_state` gave.

        Raises:
            ModelError: if it was trained with another template, or as `Method.load_trained_state`.
        """
        theirs = state.get("words.tokens")
        if theirs is not None and theirs.tolist() != self.words.ids:
            raise ModelError("it was trained with another MODEL.MKT.TEMPLATE, whose words are others")
        super().load_trained_state(state)

    def groups(self) -> list[Group]:
        """What the stage trains, by AdamW: matrices and vectors of each part of the tail, or the words."""
        if self.stage == 2:
            return [Group("words", [self.words.rows], "adamw", self.lr, self.weight_decay)]
        groups = []
        for depth, (name, parameters) in enumerate(self.tail.parts().items()):
            rate = self.lr * self.layer_decay**depth
            matrices = [p for p in parameters if p.ndim > 1]
            vectors = [p for p in parameters if p.ndim == 1]
            groups += [
                Group(f"{name}_matrices", matrices, "adamw", rate, self.weight_decay),
                Group(f"{name}_vectors", vectors, "adamw", rate, 0.0),
            ]
        return groups
