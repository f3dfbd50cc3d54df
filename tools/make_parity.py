"""Writes a file for tools/check_parity.py: a CLIP of any size with random weights, and what this code computes with it.

    python tools/make_parity.py --backbone ViT-B/16 --out vit_b_16.npz
    python tools/check_parity.py vit_b_16.npz

The numbers are this code's own, so reproducing them on the same machine says nothing; on another one, on another
version of torch, or with another implementation that is given the same inputs, it does (docs/parity.md).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import numpy as np
import torch
from torch import Tensor

from clip.adapters import TextGuidedSelection
from clip.load import load_clip, sizes
from engine import cli
from tools.check_parity import ParityError, Recomputed, Reference

SEEN = ("dog", "red car", "person", "kite", "bicycle", "dining table", "cup")
UNSEEN = ("cat", "traffic light", "sofa")
TEMPLATE = "A photo of a {}."
ADAPTED_LAST = 3  # blocks of both towers that are adapted, as in the release


def stored(tensor: Tensor) -> np.ndarray:
    """In half precision, which is what everything is computed with."""
    return tensor.detach().half().numpy()


def frozen(backbone: str, seed: int) -> tuple[Reference, dict[str, int]]:
    """Keys clip/, the labels and their tokens; and depths and widths of the towers."""
    towers = load_clip(backbone, "random", seed=seed)
    visual, text = towers.visual, towers.text
    tokens = towers.tokenize([TEMPLATE.format(name) for name in (*SEEN, *UNSEEN)])
    ids = tokens.unique()
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    state |= {name: value for name, value in text.state_dict().items() if name != "attn_mask"}
    rows = state.pop("token_embedding.weight")[ids]
    file = Reference({f"clip/{name}": stored(value) for name, value in state.items()})
    file["clip/logit_scale"] = np.array(np.log(towers.logit_scale), dtype=np.float32)
    file["clip/token_embedding.ids"], file["clip/token_embedding.rows"] = ids.int().numpy(), stored(rows)
    file["text_tokens"], file["template"] = tokens.int().numpy(), np.array(TEMPLATE)
    file["classes.seen"], file["classes.unseen"] = np.array(SEEN), np.array(UNSEEN)
    for name, tower in (("visual", visual), ("text", text)):
        file[f"head_width.{name}"] = np.array(tower.transformer.resblocks[0].attn.head_dim)
    sizes = {
        "depth": len(visual.transformer.resblocks), "text_depth": len(text.transformer.resblocks),
        "width": visual.proj.shape[0], "text_width": text.token_embedding.weight.shape[1],
        "joint": visual.proj.shape[1], "height": visual.image_size[0], "image_width": visual.image_size[1],
    }  # fmt: skip
    return file, sizes


def trained(sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Keys param/: drawn as at the start of a training, prompts and selections of the last blocks."""
    named: dict[str, Tensor] = {"temperature.local": torch.tensor(2e-3), "temperature.global": torch.tensor(1e-2)}
    for block in range(sizes["depth"])[-ADAPTED_LAST:]:
        selection = TextGuidedSelection(sizes["width"], sizes["joint"], mask_kernel=3)
        named |= {f"visual.{block}.tss.{name}": value for name, value in selection.named_parameters()}
        named[f"visual.{block}.prompts"] = 0.02 * torch.randn(8, sizes["width"])
    for block in range(sizes["text_depth"])[-ADAPTED_LAST:]:
        named[f"text.{block}.prompts"] = 0.02 * torch.randn(4, sizes["text_width"])
    return {f"param/{name}": stored(value) for name, value in named.items()}


def inputs(backbone: str, *, seed: int, batch: int, steps: int) -> Reference:
    """Everything that goes in; see docs/parity.md."""
    file, sizes = frozen(backbone, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        file |= trained(sizes)
    file["image"] = stored(torch.randn(batch, 3, sizes["height"], sizes["image_width"], generator=generator))
    file["target"] = (torch.rand(batch, len(SEEN), generator=generator) < 0.4).to(torch.int8).numpy()
    file["target"][0, 0] = 1  # at least one label is present
    file |= {
        "eval/gzsl.reg": np.array(0.1, dtype=np.float32), "train/reg": np.array(0.15, dtype=np.float32),
        "trajectory/lr": np.array([5e-6, 5e-5, 1e-3]), "trajectory/weight_decay": np.array(1e-4),
        "trajectory/momentum": np.array(0.9), "trajectory/loss": np.zeros(steps),
    }  # fmt: skip
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and writes the file."""
    parser = cli.parser(__doc__)
    parser.add_argument("--backbone", default="ViT-B/16", help="as MODEL.BACKBONE")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and targets")
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--steps", type=int, default=2, help="of the trajectory")
    args = cli.read(parser, arguments)
    if args.out.suffix != ".npz" or not args.out.absolute().parent.is_dir():
        raise ParityError(f"--out {args.out}: name an .npz file in a folder that exists")
    if args.batch < 1 or args.steps < 1:
        raise ParityError(f"--batch {args.batch} --steps {args.steps}: both have to be 1 or more")
    if sizes(args.backbone).vision_blocks == 0:
        raise ParityError(f"--backbone {args.backbone} is a ResNet, and RAM needs a ViT, such as ViT-B/16")
    file = inputs(args.backbone, seed=args.seed, batch=args.batch, steps=args.steps)
    file |= {key: value.detach().numpy() for _, key, value in Recomputed(file)}
    arrays: dict[str, Any] = dict(file)  # any: numpy has named arguments that are no arrays
    np.savez_compressed(args.out, **arrays)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
