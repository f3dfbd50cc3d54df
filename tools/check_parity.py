"""Compares this implementation with numbers that the authors' release computed.

    python tools/check_parity.py FILE.npz

Rebuilds the model that the file describes (format: docs/parity.md), recomputes everything that the file holds
and prints, for each group, the largest relative error ||ours - theirs|| / ||theirs|| and the key that has it.
Exits 1 if one is above 1e-4 (trajectory: 1e-3), 2 if the file cannot be read.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk
from clip.prompts import DeepPrompts
from clip.text import TextEncoder
from engine.optim import ParameterGroups, optimizers
from loss import mmc_loss
from model.kcot import KCOT
from model.model import RAM, Labels, Recognition

LIMITS = {"text": 1e-4, "image": 1e-4, "teacher": 1e-4, "eval": 1e-4, "train": 1e-4, "grad": 1e-4, "trajectory": 1e-3}
HEAD_WIDTH = 64  # in both towers of OpenAI's models


class ParityError(ValueError):
    """The file is not one of reference numbers."""


class Difference(NamedTuple):
    """How far one key is off."""

    group: str
    key: str
    error: float


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file by key."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError) as error:
        raise ParityError(f"cannot read {path}: {error}") from error
    missing = {"image", "target", "text_tokens", "template", "classes.seen", "classes.unseen"} - arrays.keys()
    if missing:
        raise ParityError(f"{path} holds no {sorted(missing)[0]}; see docs/parity.md for what such a file holds")
    return arrays


def tensor(array: np.ndarray) -> Tensor:
    """float32, whatever precision it is stored in."""
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def blocks_with(file: dict[str, np.ndarray], prefix: str, suffix: str) -> tuple[int, ...]:
    """Indices i of the keys PREFIX.i.SUFFIX..."""
    found = {int(key.removeprefix(prefix).split(".")[0]) for key in file
             if key.startswith(prefix) and suffix in key.removeprefix(prefix)}  # fmt: skip
    return tuple(sorted(found))


def depth(file: dict[str, np.ndarray], prefix: str) -> int:
    """Number of transformer blocks below PREFIX."""
    return 1 + max(int(key.removeprefix(prefix).split(".")[0]) for key in file if key.startswith(prefix))


def build_clip(file: dict[str, np.ndarray]) -> CLIP:
    """The file's frozen CLIP; rows of the token table that it leaves out are zero and never read."""
    state = {key.removeprefix("clip/"): value for key, value in file.items() if key.startswith("clip/")}
    ids, rows = state.pop("token_embedding.ids"), state.pop("token_embedding.rows")
    width, _, patch, _ = state["visual.conv1.weight"].shape
    text_width = rows.shape[1]
    vision_cfg = {
        "image_size": tuple(file["image"].shape[2:]), "patch_size": int(patch), "width": int(width),
        "layers": depth(state, "visual.transformer.resblocks."), "head_width": HEAD_WIDTH,
    }  # fmt: skip
    text_cfg = {
        "context_length": len(state["positional_embedding"]), "vocab_size": max(49408, int(ids.max()) + 1),
        "width": text_width, "layers": depth(state, "transformer.resblocks."), "heads": text_width // HEAD_WIDTH,
    }  # fmt: skip
    clip = CLIP(state["visual.proj"].shape[1], vision_cfg, text_cfg, quick_gelu=True).eval().requires_grad_(False)
    table = torch.zeros_like(clip.token_embedding.weight)
    table[torch.from_numpy(ids).long()] = tensor(rows)
    clip.load_state_dict({**{k: tensor(v) for k, v in state.items()}, "token_embedding.weight": table})
    return clip


def build_model(file: dict[str, np.ndarray]) -> RAM:
    """RAM with the file's weights and hyper-parameters."""
    clip = build_clip(file)
    names = [*file["classes.seen"].tolist(), *file["classes.unseen"].tolist()]
    tokens = {str(file["template"]).format(n): torch.from_numpy(t).long() for n, t in zip(names, file["text_tokens"], strict=True)}
    adapted = blocks_with(file, "param/visual.", "tss")
    text_blocks = blocks_with(file, "param/text.", "prompts")
    trunk = ImageTrunk(
        clip.visual, adapted=adapted, saa_blocks=range(len(clip.visual.transformer.resblocks)), ladder_factor=1.0
    )
    text = TextEncoder(
        clip, lambda texts: torch.stack([tokens[t] for t in texts]), template=str(file["template"]), prompted=text_blocks
    )
    mask = file[f"param/visual.{adapted[0]}.tss.mask_conv.weight"]
    reg = float(file["eval/gzsl.reg"])
    model = RAM(
        trunk=trunk,
        text=text,
        adapter=LadderLocalAdapter(
            adapted, width=trunk.width, joint_width=text.joint_width, mask_kernel=mask.shape[-1], ladder_factor=1.0
        ),
        visual_prompts=_prompts(file, "visual", trunk.width),
        label_prompts=_prompts(file, "text", text.width),
        kcot=KCOT(
            scale=float(np.exp(file["clip/logit_scale"])), reg=reg, reg_teacher=float(file["train/reg"]) - reg,
            presence_temperature=0.1, sharpness=20.0, max_iter=100, tol=1e-3, stop="batch",
        ),
        local_temperature=float(file["param/temperature.local"]),
        global_temperature=float(file["param/temperature.global"]),
    )  # fmt: skip
    with torch.no_grad():
        for key, parameter in named_parameters(model).items():
            parameter.copy_(tensor(file[f"param/{key}"]))
    return model


def _prompts(file: dict[str, np.ndarray], tower: str, width: int) -> DeepPrompts:
    blocks = blocks_with(file, f"param/{tower}.", "prompts")
    count = len(file[f"param/{tower}.{blocks[0]}.prompts"]) if blocks else 0
    return DeepPrompts(blocks, count=count, width=width)


def named_parameters(model: RAM) -> dict[str, Tensor]:
    """The trained parameters under the file's names."""
    named = {"temperature.local": model.local_temperature, "temperature.global": model.global_temperature}
    for tower, prompts in (("visual", model.visual_prompts), ("text", model.label_prompts)):
        named |= {f"{tower}.{block}.prompts": p for block, p in prompts().items()}
    for block, selection in model.adapter.selections.items():
        named |= {f"visual.{block}.tss.{name}": p for name, p in selection.named_parameters()}
    return named


def results(recognition: Recognition) -> dict[str, Tensor]:
    """A forward pass under the file's names."""
    match = recognition.matching
    return {"marginal_regions": match.mu, "cost": match.cost, "plan": match.plan,
            "reg": torch.tensor(match.reg), "score": recognition.scores}  # fmt: skip


class Recomputed:
    """Everything that the file holds, computed here, as (group, key, value)."""

    def __init__(self, file: dict[str, np.ndarray]) -> None:
        self.file, self.model = file, build_model(file)
        self.images, self.targets = tensor(file["image"]), tensor(file["target"])
        self.seen, self.unseen = file["classes.seen"].tolist(), file["classes.unseen"].tolist()

    def __iter__(self) -> Iterator[tuple[str, str, Tensor]]:
        self.model.eval()
        with torch.no_grad():
            yield from self.features()
            for protocol, names in (("gzsl", self.seen + self.unseen), ("zsl", self.unseen)):
                found = results(self.model(self.images, self.model.encode_labels(names)))
                yield from (("eval", f"eval/{protocol}.{key}", value) for key, value in found.items())
        yield from self.training()
        yield from self.trajectory()

    def features(self) -> Iterator[tuple[str, str, Tensor]]:
        model, labels = self.model, self.model.encode_labels(self.seen + self.unseen)
        yield "text", "text_features", labels.features
        yield "text", "text_features.teacher", labels.frozen
        state = model.trunk.stem(self.images)
        features = model.trunk.finish(state, model.visual_prompts())
        yield "image", "eval/global_features", features.cls
        yield "image", "eval/local_features", model.trunk.project(model.adapter(features, labels.features))
        yield "teacher", "teacher/local_features", model.trunk.teacher_regions(state)

    def loss(self) -> tuple[Recognition, Tensor]:
        labels: Labels = self.model.encode_labels(self.seen)
        found = self.model(self.images, labels, self.targets)
        return found, mmc_loss(found.local_logits, self.targets) + mmc_loss(found.global_logits, self.targets)

    def training(self) -> Iterator[tuple[str, str, Tensor]]:
        self.model.train()
        found, loss = self.loss()
        loss.backward()
        for key, value in {**results(found), "teacher_plan": found.assignment, "loss": loss}.items():
            yield "train", f"train/{key}", value.detach()
        for key, parameter in named_parameters(self.model).items():
            yield "grad", f"grad/{key}", parameter.grad

    def trajectory(self) -> Iterator[tuple[str, str, Tensor]]:
        lr = [float(x) for x in self.file["trajectory/lr"]]
        decay = float(self.file["trajectory/weight_decay"])
        pair = optimizers(
            ParameterGroups(*self.model.trained_parts()), lr=lr[1], adapter_factor=lr[0] / lr[1], lr_sgd=lr[2],
            weight_decay=decay, weight_decay_sgd=decay, momentum=float(self.file["trajectory/momentum"]),
        )  # fmt: skip
        unscaled = torch.amp.GradScaler("cpu", enabled=False)
        losses = []
        for _ in self.file["trajectory/loss"]:
            _, loss = self.loss()
            losses.append(loss.item())
            pair.zero_grad()
            loss.backward()
            pair.step(unscaled)
        yield "trajectory", "trajectory/loss", torch.tensor(losses)
        self.model.eval()
        with torch.no_grad():
            labels = self.model.encode_labels(self.seen + self.unseen)
            yield "trajectory", "trajectory/gzsl.score", self.model(self.images, labels).scores


def differences(path: Path) -> list[Difference]:
    """The relative error of every key of the file."""
    file = read(path)
    found = []
    for group, key, value in Recomputed(file):
        if key not in file:
            raise ParityError(f"{path} holds no {key}")
        theirs = file[key].astype(np.float64)
        if theirs.shape != tuple(value.shape):
            raise ParityError(f"{key} is {tuple(value.shape)} here and {theirs.shape} in {path}")
        error = np.linalg.norm(value.double().numpy() - theirs) / max(np.linalg.norm(theirs), 1e-30)
        found.append(Difference(group, key, float(error)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="reference numbers, .npz")
    try:
        found = differences(parser.parse_args().file)
    except ParityError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    status = 0
    for group, limit in LIMITS.items():
        worst = max((d for d in found if d.group == group), key=lambda d: (np.isnan(d.error), d.error))
        right = worst.error <= limit
        status |= not right
        print(f"{group:<11}{worst.error:9.1e}  {'ok  ' if right else 'FAIL'}  (limit {limit:.0e}, worst: {worst.key})")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
