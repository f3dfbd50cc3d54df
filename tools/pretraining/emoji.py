"""Pre-training on drawn concepts: small images of one, then ever larger scenes of more."""

from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from datasets.emoji.names import LABELS
from datasets.emoji.scenes import Layout, scene
from tools.pretraining.optimisers import muon
from tools.pretraining.towers import encode_tokens, normalise, texts_in_parts
from tools.pretraining.world import Step, World

__all__ = ["Emoji"]

VAL_SCENES = 300
ASKED = 320  # labels that a step compares with, or those that it names if more; all would cost more than the images
PATCH, GRID = 8, 8  # pixels of a patch's side, patches of the model's side
INDEX = {label: number for number, label in enumerate(LABELS)}


class Stage(NamedTuple):
    """What is shown until the share `until` of the steps is done."""

    until: float
    layout: Layout


# Names are learnt from single drawings: where a scene shows many, nothing says which is called what. An image of 32
# pixels costs a fourth of one of 64, and its drawing is as large as in scenes.
STAGES = (
    Stage(0.06, Layout(32, (1, 1), (26, 32))),
    Stage(0.40, Layout(32, (1, 1), (18, 32))),
    Stage(0.50, Layout(48, (1, 4), (18, 34))),
    Stage(0.60, Layout(64, (2, 6))),
    Stage(1.00, Layout(64, (2, 9))),
)


class Emoji(World):
    """Captions name one to all of a scene's objects; a step compares images with what is named in it, and others."""

    architecture = "ViT-S-8-emoji"
    labels = LABELS
    templates = ("a {}", "a photo of a {}", "a drawing of a {}", "{}", "A photo of a {}.", "there is a {}")
    batch, steps, rate, warmup, text_parts = 128, 9_000, 3e-3, 200, 3

    def optimisers(self, model: Any) -> list[Optimizer]:
        """Muon."""
        return muon(model)

    def step(self, number: int, steps: int, batch: int, seed: int) -> Step:
        """Step `number` of `steps`, as `STAGES` say."""
        rng = np.random.default_rng((seed, number))
        stage = next((stage for stage in STAGES if number < stage.until * steps), STAGES[-1])
        scenes = [scene("pretrain", int(rng.integers(2**31)), stage.layout) for _ in range(batch)]
        captions = [rng.permutation([INDEX[label] for label in s.labels]) for s in scenes]
        captions = [found[: rng.integers(1, len(found) + 1)] for found in captions]
        asked = np.unique(np.concatenate(captions))
        others = np.setdiff1d(np.arange(len(LABELS)), asked)
        asked = np.sort(np.concatenate([asked, rng.permutation(others)[: max(ASKED - len(asked), 0)]]))
        named = torch.zeros(batch, len(asked))
        for row, found in zip(named, captions, strict=True):
            row[np.searchsorted(asked, found)] = 1
        top, left = rng.integers(0, GRID - stage.layout.side // PATCH + 1, 2).tolist()
        return Step(normalise([np.asarray(s.image) for s in scenes]), torch.from_numpy(asked), named, (top, left))

    @torch.inference_mode()
    def zero_shot(self, model: Any) -> dict[str, float]:
        """Top-1 and top-5 accuracy on single drawings, recall among the first 5 labels on scenes.

        `val_recall5_regions` ranks a label by the patch token that is most like it instead of by the class token.
        """
        tokens = open_clip.tokenize([f"A photo of a {label}." for label in LABELS])
        texts = texts_in_parts(model, tokens, 4)
        single, targets = _scores(model, texts, Layout(32, (1, 1), (18, 32)))
        found = {f"val_top{k}_single": 100 * _recall(single[0], targets, k) for k in (1, 5)}
        scene_scores, targets = _scores(model, texts, Layout())
        names = ("val_recall5", "val_recall5_regions")
        return found | {
            name: 100 * _recall(scores, targets, 5) for name, scores in zip(names, scene_scores, strict=True)
        }


def _scores(model: Any, texts: Tensor, layout: Layout) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Of validation scenes: cosines (B, C) of class tokens, of the most similar patch tokens, and targets (B, C)."""
    scenes = [scene("val", i, layout) for i in range(VAL_SCENES)]
    features = [
        encode_tokens(model, normalise([np.asarray(s.image) for s in scenes[i : i + 50]])) @ model.visual.proj
        for i in range(0, len(scenes), 50)
    ]
    cosines = F.normalize(torch.cat(features), dim=-1) @ texts.T  # (B, 1 + N, C)
    targets = torch.tensor([[label in s.labels for label in LABELS] for s in scenes])
    return (cosines[:, 0], cosines[:, 1:].amax(1)), targets


def _recall(scores: Tensor, targets: Tensor, k: int) -> float:
    """The share of an image's labels that are among its first k, mean over images."""
    hits = targets.gather(1, scores.topk(k, 1).indices).sum(1)
    return float((hits / targets.sum(1)).mean())
