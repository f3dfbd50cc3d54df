"""Pre-trains the small CLIP of an embedded world on captions of its scenes.

    python tools/pretrain_clip.py --out shapes.safetensors
    python tools/pretrain_clip.py --world emoji --out emoji.safetensors

A caption names some of the objects of its scene ("a red circle", "a photo of a blue star."), never with a position:
what the web says of an image. The objective is CLIP's, in both directions and with a learnable scale: every image
against every named thing. Equal names under other templates would count as negatives, so a step uses one template and
each name once. The labels that RAM's training never sees do occur in captions, as they would on the web.

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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from engine import cli
from tools.pretraining.emoji import Emoji
from tools.pretraining.objective import contrastive_loss
from tools.pretraining.shapes import Shapes
from tools.pretraining.towers import build, encode_images, texts_in_parts
from tools.pretraining.world import Step, World

WORLDS: dict[str, World] = {"shapes": Shapes(), "emoji": Emoji()}


class Steps(Dataset):
    """The steps of a training from `first` on."""

    def __init__(self, world: World, steps: int, batch: int, seed: int, first: int = 0) -> None:
        self.world, self.steps, self.batch, self.seed, self.first = world, steps, batch, seed, first

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, item: int) -> Step:
        return self.world.step(self.first + item, self.steps, self.batch, self.seed)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear over the first `warmup` steps, then half a cosine down to zero."""
    warm = min(step + 1, warmup) / warmup
    return peak * warm * (1 + math.cos(math.pi * step / steps)) / 2


def train(args: argparse.Namespace) -> None:
    """Writes the trained weights to `out` in float16 (scalars in float32); checkpoint and log lie beside them.

    The log has one JSON line per validation: steps and images so far, mean loss since the line before, the logit scale,
    seconds since the start or resumption, and what the world's `zero_shot` gives.

    Args:
        args: `world`; `out`, a path; `steps` in all, `batch`, images per step, and `lr`, the peak, or None for the
            world's own; `seed` of weights and data; `every`, steps between validations; `resume`, to go on from the
            checkpoint if there is one.
    """
    world = WORLDS[args.world]
    steps, batch, peak = args.steps or world.steps, args.batch or world.batch, args.lr or world.rate
    model = build(world.architecture, args.seed)
    optimisers = world.optimisers(model)
    checkpoint = args.out.with_suffix(".ckpt")
    first = resume(checkpoint, model, optimisers) if args.resume and checkpoint.exists() else 0
    tokens = [open_clip.tokenize([t.format(label) for label in world.labels]) for t in world.templates]
    loader = DataLoader(
        Steps(world, steps, batch, args.seed, first), batch_size=None, num_workers=1, prefetch_factor=16
    )
    log = args.out.with_suffix(".log.jsonl").open("a" if first else "w")
    begun, losses = time.monotonic(), []
    for number, shown in enumerate(tqdm(loader, initial=first, total=steps, miniters=50), start=first):
        rate = learning_rate(number, steps, peak, world.warmup)
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = group["factor"] * rate
        texts = tokens[number % len(tokens)][shown.asked]
        losses.append(update(model, optimisers, shown, texts, world.text_parts))
        if (number + 1) % args.every == 0 or number + 1 == steps:
            row = {"step": number + 1, "images": (number + 1) * batch, "loss": float(np.mean(losses)),
                   "scale": model.logit_scale.exp().item(), "seconds": round(time.monotonic() - begun),
                   **world.zero_shot(model)}  # fmt: skip
            losses.clear()
            log.write(json.dumps(row) + "\n")
            log.flush()
            save(checkpoint, model, optimisers, number + 1)
    half = {k: v.to(torch.float16) if v.ndim else v for k, v in model.state_dict().items()}
    facts = {"architecture": world.architecture, "seed": args.seed, "images": steps * batch}
    save_file(half, args.out, {key: str(value) for key, value in facts.items()})


def update(model: Any, optimisers: list[Optimizer], shown: Step, texts: Tensor, text_parts: int) -> float:
    """One step on what is shown, whose labels are the tokens `texts` (C, 77); the loss before it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = encode_images(model, shown.images, shown.corner)
        t = texts_in_parts(model, texts, text_parts)
    loss = contrastive_loss(model.logit_scale.exp().clamp(max=100) * x.float() @ t.float().T, shown.named)
    model.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([p for name, p in model.named_parameters() if name != "logit_scale"], 1.0)
    for optimiser in optimisers:
        optimiser.step()
    return loss.item()


def save(checkpoint: Path, model: Any, optimisers: list[Optimizer], steps: int) -> None:
    """Writes a checkpoint after so many steps, in the place of the one before."""
    part = checkpoint.with_suffix(".part")
    states = [optimiser.state_dict() for optimiser in optimisers]
    torch.save({"model": model.state_dict(), "optimizers": states, "step": steps}, part)
    part.replace(checkpoint)


def resume(checkpoint: Path, model: Any, optimisers: list[Optimizer]) -> int:
    """Loads a checkpoint into model and optimisers; the number of steps that it has behind it."""
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(optimisers, state["optimizers"], strict=True):
        optimiser.load_state_dict(saved)
    return state["step"]


def main() -> None:
    """Reads the command line and trains; the folder of `--out` is made if there is none."""
    parser = cli.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="weights to write, .safetensors")
    parser.add_argument("--world", choices=WORLDS, default="shapes")
    parser.add_argument("--steps", type=int, help="of the training; the world's own if not given")
    parser.add_argument("--batch", type=int, help="images a step; the world's own if not given")
    parser.add_argument("--lr", type=float, help="peak of the learning rate; the world's own if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between validations and checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint beside --out")
    args = cli.read(parser)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    sys.exit(cli.run(main))
