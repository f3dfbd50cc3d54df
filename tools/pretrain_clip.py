"""Pre-trains the small CLIP of the embedded benchmark on captions of its scenes.

    python tools/pretrain_clip.py --out shapes.safetensors

A caption names one or two of the objects of its scene ("a red circle", "a photo of a blue star."),
never all of them and never with a position: what the web says of an image. The objective is CLIP's,
in both directions and with a learnable scale: every image against every named thing. Equal names under
other templates would count as negatives, so a step uses one template and the set of all names as texts.
The 17 labels that RAM's training never sees do occur in captions, as they would on the web.

Runs on the CPU in bfloat16; writes a checkpoint as it goes (`--resume` goes on from it) and a log beside
the weights. Zero-shot quality is followed on the validation split; the test split is not touched.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clip.blocks import run_block
from datasets.shapes import LABELS, scene
from engine import cli

ARCHITECTURE = "ViT-S-8-shapes"
TEMPLATES = (
    "A photo of a {}.", "a {}", "a photo of a {}", "a picture of a {}.", "there is a {} in the scene.",
    "an image with a {}.", "a drawing of a {}", "a small {}",
)  # fmt: skip
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
VAL_SCENES = 500


class Captioned(Dataset):
    """Normalised images and which of the labels the caption names; objects grow from 1 to 5 per scene."""

    def __init__(self, steps: int, batch: int, seed: int, first_step: int = 0) -> None:
        self.steps, self.batch, self.seed, self.first_step = steps, batch, seed, first_step

    def __len__(self) -> int:
        return self.steps - self.first_step

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        step = self.first_step + item
        rng = np.random.default_rng((self.seed, step))
        progress = step / self.steps
        most = 1 if progress < 0.15 else min(1 + math.ceil((progress - 0.15) / 0.1), 5)
        images, named = [], torch.zeros(self.batch, len(LABELS))
        for row in range(self.batch):
            objects = (max(1, most - 3), most)
            image, labels = scene("pretrain", int(rng.integers(2**31)), objects)
            images.append(np.asarray(image))
            for label in rng.permutation(labels)[: rng.integers(1, 3)]:
                named[row, LABELS.index(label)] = 1
        return normalise(images), named


def normalise(images: list[np.ndarray]) -> Tensor:
    """(B, 3, H, W) float32 with CLIP's own mean and standard deviation."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def encode_images(model: Any, images: Tensor) -> Tensor:
    """Features (B, D) of unit norm, those of open_clip's `encode_image`.

    Args:
        model: open_clip's CLIP, with a ViT.
        images: (B, 3, H, W), normalised, of the model's own size.
    """
    visual = model.visual
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (B, N, W)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks:
        x = run_block(block, x)
    return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)


def encode_texts(model: Any, tokens: Tensor) -> Tensor:
    """Features (C, D) of unit norm, those of open_clip's `encode_text`; tokens are (C, 77), as its tokenizer gives."""
    ends = tokens.argmax(-1)
    tokens = tokens[:, : int(ends.max()) + 1]  # causal: nothing after the end is ever read
    x = model.token_embedding(tokens) + model.positional_embedding[: tokens.shape[1]]
    for block in model.transformer.resblocks:
        x = run_block(block, x, causal=True)
    return F.normalize(model.ln_final(x[torch.arange(len(x)), ends]) @ model.text_projection, dim=-1)


def contrastive_loss(logits: Tensor, named: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy where an image may have two texts and a text several images."""
    per_image = named / named.sum(1, keepdim=True)
    present = named.sum(0) > 0
    per_text = (named / named.sum(0).clamp(min=1))[:, present]
    image_loss = -(per_image * logits.log_softmax(1)).sum(1).mean()
    text_loss = -(per_text * logits[:, present].log_softmax(0)).sum(0).mean()
    return (image_loss + text_loss) / 2


@torch.inference_mode()
def zero_shot(model: Any) -> dict[str, float]:
    """In percent: mAP of zero-shot CLIP on scenes of two to five objects, top-1 accuracy on scenes of one."""
    texts = encode_texts(model, open_clip.tokenize([TEMPLATES[0].format(label) for label in LABELS]))
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


def build(seed: int) -> Any:
    """A CLIP of `ARCHITECTURE` with random weights, float32; sets torch's global seed."""
    torch.manual_seed(seed)
    open_clip.add_model_config(Path(__file__).resolve().parent.parent / "clip/architectures")
    return open_clip.create_model(ARCHITECTURE)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear over the first 500 steps, then half a cosine down to zero."""
    warm = min(step + 1, 500) / 500
    return peak * warm * (1 + math.cos(math.pi * step / steps)) / 2


def train(args: argparse.Namespace) -> None:
    """Writes the trained weights to `out` in float16 (scalars in float32); checkpoint and log lie beside them.

    The log has one JSON line per validation: steps and images so far, mean loss since the line before, the logit scale,
    seconds since the start or resumption, and what `zero_shot` gives.

    Args:
        args: `out`, a path; `steps` in all and `batch`, images per step; `lr`, the peak; `seed` of weights and data;
            `every`, steps between validations; `resume`, to go on from the checkpoint if there is one.
    """
    model = build(args.seed)
    scale = [model.logit_scale]
    plain = [p for n, p in model.named_parameters() if n != "logit_scale"]
    optimizer = torch.optim.AdamW([
        {"params": [p for p in plain if p.ndim >= 2], "weight_decay": 0.05, "factor": 1.0},
        {"params": [p for p in plain if p.ndim < 2], "weight_decay": 0.0, "factor": 1.0},
        {"params": scale, "weight_decay": 0.0, "factor": 10.0},
    ], fused=True)  # fmt: skip
    checkpoint, first = args.out.with_suffix(".ckpt"), 0
    if args.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    tokens = [open_clip.tokenize([t.format(label) for label in LABELS]) for t in TEMPLATES]
    data = Captioned(args.steps, args.batch, args.seed, first)
    loader = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=16)
    log = args.out.with_suffix(".log.jsonl").open("a" if first else "w")
    begun, losses = time.monotonic(), []
    for step, (images, named) in enumerate(tqdm(loader, initial=first, total=args.steps, miniters=50), start=first):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(step, args.steps, args.lr)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x, t = encode_images(model, images), encode_texts(model, tokens[step % len(tokens)])
        loss = contrastive_loss(model.logit_scale.exp().clamp(max=100) * x.float() @ t.float().T, named)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            row = {"step": step + 1, "images": (step + 1) * args.batch, "loss": float(np.mean(losses)),
                   "scale": model.logit_scale.exp().item(), "seconds": round(time.monotonic() - begun),
                   **zero_shot(model)}  # fmt: skip
            losses.clear()
            log.write(json.dumps(row) + "\n")
            log.flush()
            part = checkpoint.with_suffix(".part")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, part)
            part.replace(checkpoint)
    half = {k: v.to(torch.float16) if v.ndim else v for k, v in model.state_dict().items()}
    facts = {"architecture": ARCHITECTURE, "seed": args.seed, "images": args.steps * args.batch}
    save_file(half, args.out, {key: str(value) for key, value in facts.items()})


def main() -> None:
    """Reads the command line and trains; the folder of `--out` is made if there is none."""
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="weights to write, .safetensors")
    parser.add_argument("--steps", type=int, default=15_625)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between validations and checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    args = cli.read(parser)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
