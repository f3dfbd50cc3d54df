"""Compares this implementation with numbers that the authors' release computed.

    python tools/check_parity.py FILE.npz

Rebuilds the model that the file describes (format: docs/parity.md), recomputes everything that the file holds
and prints, for each group, the largest relative error ||ours - theirs|| / ||theirs|| and the key that has it.
Exits 1 if one is above 1e-4 (trajectory: 1e-3), 2 if the file is broken or lacks something. Keys that belong to
no group are not looked at, and named.
"""

import sys
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import numpy as np
import torch
from open_clip.model import CLIP
from torch import Tensor

from clip.adapters import LadderLocalAdapter
from clip.image import ImageTrunk
from clip.prompts import DeepPrompts
from clip.text import TextEncoder
from engine import cli
from engine.optim import optimizers
from errors import UserError
from loss import mmc_loss
from model.kcot import KCOT, teacher_assignment
from model.labels import DeepLabelPrompts, Labels
from model.method import Recipe
from model.model import RAM, Recognition
from model.ot_solver import sinkhorn

LIMITS = {"text": 1e-4, "image": 1e-4, "teacher": 1e-4, "eval": 1e-4, "train": 1e-4, "grad": 1e-4, "trajectory": 1e-3}
INPUTS = ("clip/", "param/", "image", "target", "text_tokens", "classes.", "template", "trajectory/", "head_width.")
HEAD_WIDTH = np.array(64)  # in both towers of OpenAI's models


class ParityError(UserError, ValueError):
    """The file is not one of reference numbers."""


class Difference(NamedTuple):
    """How far one key is off."""

    group: str
    key: str
    error: float


class Reference(dict[str, np.ndarray]):
    """The arrays of a file by key."""

    def __missing__(self, key: str) -> np.ndarray:
        raise ParityError(f"the file holds no {key}; docs/parity.md says what belongs in it")


def read(path: Path) -> Reference:
    """The arrays of the file by key."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            return Reference(file)
    except Exception as error:  # numpy reads heads as pieces of Python, which fails in many ways
        raise ParityError(f"cannot read {path}: {error}") from error


def tensor(array: np.ndarray) -> Tensor:
    """float32, whatever precision it is stored in."""
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def blocks_with(file: Reference, prefix: str, suffix: str) -> tuple[int, ...]:
    """Indices i of the keys PREFIX.i.SUFFIX..."""
    parts = [key.removeprefix(prefix).split(".") for key in file if key.startswith(prefix)]
    return tuple(sorted({int(index) for index, kind, *_ in parts if kind == suffix}))


def depth(file: Reference, prefix: str) -> int:
    """Number of transformer blocks below PREFIX."""
    return 1 + max((int(key.removeprefix(prefix).split(".")[0]) for key in file if key.startswith(prefix)), default=-1)


def build_clip(file: Reference) -> CLIP:
    """The file's frozen CLIP; rows of the token table that it leaves out are zero and never read."""
    state = {key.removeprefix("clip/"): value for key, value in file.items() if key.startswith("clip/")}
    ids, rows = file["clip/token_embedding.ids"], file["clip/token_embedding.rows"]
    del state["token_embedding.ids"], state["token_embedding.rows"]
    width, _, patch, _ = file["clip/visual.conv1.weight"].shape
    text_width = rows.shape[1]
    vision_cfg = {
        "image_size": tuple(file["image"].shape[2:]), "patch_size": int(patch), "width": int(width),
        "layers": depth(file, "clip/visual.transformer.resblocks."),
        "head_width": int(file.get("head_width.visual", HEAD_WIDTH)),
    }  # fmt: skip
    text_cfg = {
        "context_length": len(file["clip/positional_embedding"]), "vocab_size": int(ids.max()) + 1,
        "width": text_width, "layers": depth(file, "clip/transformer.resblocks."),
        "heads": text_width // int(file.get("head_width.text", HEAD_WIDTH)),
    }  # fmt: skip
    clip = CLIP(file["clip/visual.proj"].shape[1], vision_cfg, text_cfg, quick_gelu=True).eval().requires_grad_(False)
    table = torch.zeros_like(clip.token_embedding.weight)
    table[torch.from_numpy(ids).long()] = tensor(rows)
    try:
        clip.load_state_dict({**{k: tensor(v) for k, v in state.items()}, "token_embedding.weight": table})
    except RuntimeError as error:
        raise ParityError(f"clip/ is no CLIP: {' '.join(str(error).split())}") from error
    return clip


def known_tokens(file: Reference) -> dict[str, Tensor]:
    """The tokens of each label's text; the file needs no tokenizer."""
    names = [*file["classes.seen"].tolist(), *file["classes.unseen"].tolist()]
    tokens = torch.from_numpy(file["text_tokens"]).long()
    if len(names) != len(tokens):
        raise ParityError(f"the file holds {len(names)} labels, but text_tokens of {len(tokens)}")
    return {str(file["template"]).format(name): row for name, row in zip(names, tokens, strict=True)}


def build_model(file: Reference) -> RAM:
    """RAM with the file's weights and hyper-parameters."""
    clip, tokens = build_clip(file), known_tokens(file)
    adapted = blocks_with(file, "param/visual.", "tss")
    text_blocks = blocks_with(file, "param/text.", "prompts")
    if not adapted:
        raise ParityError("the file holds no param/visual.BLOCK.tss; docs/parity.md says what belongs in it")
    trunk = ImageTrunk(
        clip.visual,
        adapted=sorted({*adapted, *blocks_with(file, "param/visual.", "prompts")}),
        saa_blocks=range(len(clip.visual.transformer.resblocks)),
        ladder_factor=1.0,
        ladder_start=0,
        positions="bilinear",
    )
    text = TextEncoder(
        clip,
        lambda texts: torch.stack([tokens[t] for t in texts]),
        template=str(file["template"]),
        prompted=text_blocks,
    )
    mask = file[f"param/visual.{adapted[0]}.tss.mask_conv.weight"]
    reg, scale = float(file["eval/gzsl.reg"]), float(tensor(file["clip/logit_scale"]).exp())
    model = RAM(
        trunk=trunk,
        text=text,
        adapter=LadderLocalAdapter(
            adapted, width=trunk.width, joint_width=text.joint_width, mask_kernel=mask.shape[-1]
        ),
        visual_prompts=DeepPrompts(**_prompts(file, "visual"), width=trunk.width),
        label_prompts=DeepLabelPrompts(**_prompts(file, "text"), width=text.width),
        matcher=KCOT(
            scale=scale, reg=reg, reg_teacher=float(file["train/reg"]) - reg, presence_temperature=0.1,
            solve=partial(sinkhorn, max_iter=100, tol=1e-3, stop="batch"),
        ),
        teach=partial(teacher_assignment, scale=scale, sharpness=20.0),
        loss=mmc_loss,
        loss_weight=1.0,
        recipe=recipe(file),
        local_temperature=float(file["param/temperature.local"]),
        global_temperature=float(file["param/temperature.global"]),
    )  # fmt: skip
    with torch.no_grad():
        for key, parameter in named_parameters(model).items():
            given = tensor(file[f"param/{key}"])
            if given.shape != parameter.shape:
                raise ParityError(f"param/{key} is {tuple(given.shape)}, but {tuple(parameter.shape)} fits the rest")
            parameter.copy_(given)
    return model


def recipe(file: Reference) -> Recipe:
    """The optimisers' settings of the trajectory."""
    lr, decay = [float(x) for x in file["trajectory/lr"]], float(file["trajectory/weight_decay"])
    return Recipe(lr[1], lr[0] / lr[1], lr[2], decay, decay, float(file["trajectory/momentum"]))


def _prompts(file: Reference, tower: str) -> dict[str, Any]:
    """Which blocks have prompts, and how many each."""
    blocks = blocks_with(file, f"param/{tower}.", "prompts")
    return {"blocks": blocks, "count": len(file[f"param/{tower}.{blocks[0]}.prompts"]) if blocks else 0}


def named_parameters(model: RAM) -> dict[str, Tensor]:
    """The trained parameters under the file's names."""
    assert isinstance(model.label_prompts, DeepPrompts)  # as the release has them
    named: dict[str, Tensor] = {
        "temperature.local": model.local_temperature, "temperature.global": model.global_temperature
    }  # fmt: skip
    for tower, prompts in (("visual", model.visual_prompts), ("text", model.label_prompts)):
        named |= {f"{tower}.{block}.prompts": p for block, p in prompts().items()}
    for block, selection in model.adapter.selections.items():
        named |= {f"visual.{block}.tss.{name}": p for name, p in selection.named_parameters()}
    return named


def results(recognition: Recognition) -> dict[str, Tensor]:
    """A forward pass under the file's names."""
    match = recognition.matching
    assert match.mu is not None  # KCOT gives it
    assert match.cost is not None
    return {"marginal_regions": match.mu, "cost": match.cost, "plan": match.plan,
            "reg": torch.tensor(match.reg), "score": recognition.scores}  # fmt: skip


class Recomputed:
    """Everything that the file holds, computed here, as (group, key, value)."""

    def __init__(self, file: Reference) -> None:
        self.file, self.model = file, build_model(file)
        self.images, self.targets = tensor(file["image"]), tensor(file["target"])
        self.seen, self.unseen = file["classes.seen"].tolist(), file["classes.unseen"].tolist()

    def __iter__(self) -> Iterator[tuple[str, str, Tensor]]:
        self.model.eval()
        with torch.no_grad():
            yield from self.features()
            for protocol, names in (("gzsl", self.seen + self.unseen), ("zsl", self.unseen)):
                outputs = results(self.model(self.images, self.model.encode_labels(names)))
                yield from (("eval", f"eval/{protocol}.{key}", value) for key, value in outputs.items())
        yield from self.training()
        yield from self.trajectory()

    def features(self) -> Iterator[tuple[str, str, Tensor]]:
        """Groups text, image and teacher: features for all C labels, seen ones first; none is normalised.

        Label features with and without prompts (C, D), global (B, D) and local (B, N, D) image features, and the
        teacher's local features (B, N, D).
        """
        model, labels = self.model, self.model.encode_labels(self.seen + self.unseen)
        yield "text", "text_features", labels.features
        yield "text", "text_features.teacher", labels.frozen
        state = model.trunk.stem(self.images, teacher=True)
        features = model.trunk.finish(state, model.visual_prompts())
        yield "image", "eval/global_features", features.cls
        yield "image", "eval/local_features", model.trunk.project(model.adapter(features, labels.features))
        yield "teacher", "teacher/local_features", model.trunk.teacher_regions(state)

    def loss(self) -> tuple[Recognition, Tensor]:
        """A forward pass over the seen labels with the teacher on, and the sum of both MMC losses, ()."""
        labels: Labels = self.model.encode_labels(self.seen)
        output = self.model(self.images, labels, self.targets)
        return output, torch.stack(list(self.model.losses(output, self.targets).values())).sum()

    def training(self) -> Iterator[tuple[str, str, Tensor]]:
        """Groups train and grad: one pass in training mode, and the gradient of its loss for each parameter.

        Moves BatchNorm's running statistics once and leaves the model in training mode.
        """
        self.model.train()
        output, loss = self.loss()
        loss.backward()
        assert output.assignment is not None  # KCOT asks for it
        for key, value in {**results(output), "teacher_plan": output.assignment, "loss": loss}.items():
            yield "train", f"train/{key}", value.detach()
        for key, parameter in named_parameters(self.model).items():
            assert parameter.grad is not None, f"the loss does not depend on {key}"
            yield "grad", f"grad/{key}", parameter.grad

    def trajectory(self) -> Iterator[tuple[str, str, Tensor]]:
        """Group trajectory: the loss before each step (T,), and the scores (B, C) of all labels after the last one.

        T is the number of losses in the file. The steps start from the model as it is, in the mode that it is in
        (training, after `training`), at constant rates and on the same batch; it ends in evaluation mode.

        Raises:
            ParityError: while iterating, if the file holds no trajectory/loss.
        """
        pair = optimizers(self.model.groups())
        unscaled = torch.amp.GradScaler("cpu", enabled=False)
        losses = []
        for _ in self.file["trajectory/loss"]:
            _, loss = self.loss()
            losses.append(loss.item())
            pair.zero_grad()
            loss.backward()
            pair.step(unscaled, loss.isfinite())
        yield "trajectory", "trajectory/loss", torch.tensor(losses)
        self.model.eval()
        with torch.no_grad():
            labels = self.model.encode_labels(self.seen + self.unseen)
            yield "trajectory", "trajectory/gzsl.score", self.model(self.images, labels).scores


def differences(file: Reference) -> list[Difference]:
    """The relative error of every result in the file."""
    differing = []
    for group, key, value in Recomputed(file):
        theirs = file[key].astype(np.float64)
        if theirs.shape != tuple(value.shape):
            raise ParityError(f"{key} is {tuple(value.shape)} here and {theirs.shape} in the file")
        error = np.linalg.norm(value.double().numpy() - theirs) / max(float(np.linalg.norm(theirs)), 1e-30)
        differing.append(Difference(group, key, float(error)))
    return differing


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("file", type=Path, help="reference numbers, .npz")
    args = cli.read(parser, arguments)
    return cli.run(lambda: report(read(args.file)))


def report(file: Reference) -> int:
    """Prints one line for each group; 1 if one is above its limit."""
    listed, status = differences(file), 0
    for group, limit in LIMITS.items():
        worst = max((d for d in listed if d.group == group), key=lambda d: (np.isnan(d.error), d.error))
        right = worst.error <= limit
        status |= not right
        print(f"{group:<11}{worst.error:9.1e}  {'ok  ' if right else 'FAIL'}  (limit {limit:.0e}, worst: {worst.key})")
    unread = sorted(key for key in file.keys() - {d.key for d in listed} if not key.startswith(INPUTS))
    if unread:
        print(f"not looked at: {', '.join(unread)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
