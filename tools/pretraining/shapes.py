"""Pre-training on scenes of coloured shapes, which grow from one object to five."""

import math
from typing import Any

import numpy as np
import open_clip
import torch
from torch.optim import Optimizer

from datasets.shapes import LABELS, scene
from tools.pretraining.optimisers import adamw
from tools.pretraining.towers import encode_images, encode_texts, normalise
from tools.pretraining.world import Step, World

__all__ = ["Shapes"]

VAL_SCENES = 500


class Shapes(World):
    """Captions name one or two objects, and a step compares its images with all 65 labels."""

    architecture = "ViT-S-8-shapes"
    labels = LABELS
    templates = (
        "A photo of a {}.", "a {}", "a photo of a {}", "a picture of a {}.", "there is a {} in the scene.",
        "an image with a {}.", "a drawing of a {}", "a small {}",
    )  # fmt: skip
    batch, steps, rate, warmup, text_parts = 64, 15_625, 1e-3, 500, 1

    def optimisers(self, model: Any) -> list[Optimizer]:
        """AdamW."""
        return adamw(model)

    def step(self, number: int, steps: int, batch: int, seed: int) -> Step:
        """Step `number` of `steps`; scenes of one object, then gradually two to five."""
        rng = np.random.default_rng((seed, number))
        progress = number / steps
        most = 1 if progress < 0.15 else min(1 + math.ceil((progress - 0.15) / 0.1), 5)
        images, named = [], torch.zeros(batch, len(LABELS))
        for row in range(batch):
            objects = (max(1, most - 3), most)
            image, labels = scene("pretrain", int(rng.integers(2**31)), objects)
            images.append(np.asarray(image))
            for label in rng.permutation(labels)[: rng.integers(1, 3)]:
                named[row, LABELS.index(label)] = 1
        return Step(normalise(images), torch.arange(len(LABELS)), named)

    @torch.inference_mode()
    def zero_shot(self, model: Any) -> dict[str, float]:
        """The mAP of zero-shot CLIP on scenes of two to five objects, top-1 accuracy on scenes of one."""
        texts = encode_texts(model, open_clip.tokenize([self.templates[0].format(label) for label in LABELS]))
        scenes = [scene("val", i, (2, 5)) for i in range(VAL_SCENES)]
        scores = encode_images(model, normalise([np.asarray(s.image) for s in scenes])) @ texts.T
        targets = torch.tensor([[label in s.labels for label in LABELS] for s in scenes])
        precisions = []
        for j in range(len(LABELS)):
            hits = targets[scores[:, j].argsort(descending=True), j].float()
            ranks = torch.arange(1, len(hits) + 1)
            precisions.append(float((hits.cumsum(0) / ranks * hits).sum() / hits.sum()))
        singles = [scene("val", i, (1, 1)) for i in range(VAL_SCENES)]
        top = (encode_images(model, normalise([np.asarray(s.image) for s in singles])) @ texts.T).argmax(1)
        right = [LABELS[i] == s.labels[0] for i, s in zip(top.tolist(), singles, strict=True)]
        return {"val_map": 100 * float(np.mean(precisions)), "val_top1_single": 100 * float(np.mean(right))}
