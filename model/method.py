"""What a method is: read this first to add one.

A method is a module that scores images for a list of labels. Training, evaluation, checkpoints and logs know nothing of
it but this contract, so that RAM, zero-shot CLIP and any other are exchangeable:

    labels = method.encode_labels(["dog", "red car"])
    output = method(images, labels, targets)            # targets (B, C) in training, else None
    losses = method.losses(output, targets)             # {"local": ..., "global": ...}, their sum is minimised

Testing may take it in three steps, so that what is the same for several weights or lists of labels is computed once:

    output = method.recognise(method.features(method.stem(images)), labels)

Training may take it in two, so that what no training changes is computed once for each image (DATALOADER.CACHE):

    output = method.learn(method.training_stem(images), labels, targets)

To add one, write a subclass of `Method` and a function from the configuration to it, and enter that function into
`METHODS` of `model/build.py` under the name for MODEL.METHOD; from another package, enter it before the script runs:

    from model.build import METHODS
    METHODS["mine"] = build_mine        # build_mine(cfg, towers, seen=..., texts=...) -> Method

A method that can be asked for no other labels than were known when it was built stands in `FIXED_LABELS` too, and its
function is given `labels=...`, the names of all, seen and unseen; `model/fixed_labels.py` is its base.

What a method remembers of its training beside parameters (running statistics, memory banks, thresholds) are buffers,
the same in all processes, that `forward` changes in training. They are part of `trained_state`, so they are saved and
come back to the bit, and after a step whose loss is not finite they are put back as they were before it.

`model/zero_shot.py` is the smallest example, `model/model.py` (RAM) the largest.

B images, C labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from errors import UserError

__all__ = ["Group", "Method", "ModelError", "Output", "Recipe", "chosen"]

Chosen = TypeVar("Chosen")


class ModelError(UserError, ValueError):
    """A setting that no model can be built from, the trained weights of another model, or nothing to train."""


class Output(Protocol):
    """What a method says of a batch: `scores`, and whatever else it wants to show."""

    @property
    def scores(self) -> Tensor:
        """(B, C), higher where a label is more likely to be present."""


class Group(NamedTuple):
    """Parameters that are trained alike."""

    name: str  # for the log
    parameters: list[nn.Parameter]
    optimizer: str  # adamw, adam (weight decay within the gradient) or sgd
    lr: float  # the highest of the schedule
    weight_decay: float
    momentum: float = 0.0  # of sgd


class Recipe(NamedTuple):
    """The numbers that groups of parameters are made from."""

    lr: float
    adapter_factor: float  # adapters learn at lr times this
    lr_sgd: float  # prompts
    weight_decay: float
    weight_decay_sgd: float
    momentum: float


class Method(nn.Module, ABC):
    """Scores images for candidate labels.

    Attributes:
        title: name in tables.
        frozen: names of the submodules that training never changes; checkpoints leave them out.
        not_averaged: names in `trained_state` of which a running average takes the current value.
        takes_unknown: whether it can train on images of which some labels are not known.
        mixes: whether its frozen image tower follows autocast, and may so be stored in half precision.
        compiled: names of functions, "trunk.stem", that COMPILE may compile, the one that begins a batch first.
    """

    title: str
    frozen: tuple[str, ...] = ()
    not_averaged: frozenset[str] = frozenset()
    takes_unknown: bool = False
    mixes: bool = True
    compiled: tuple[str, ...] = ()

    @abstractmethod
    def encode_labels(self, names: Sequence[str]) -> Any:
        """What `forward` takes as its labels; in evaluation computed once for a list of names."""

    @abstractmethod
    def forward(self, images: Tensor, labels: Any, targets: Tensor | None = None) -> Output:
        """Scores of images (B, 3, H, W) for encoded labels; in training with `targets`.

        Targets are (B, C), 1 where the label is present, 0 where it is absent, and -1 where that is not known, which a
        method meets only if it says that it `takes_unknown`.
        """

    def stem(self, images: Tensor) -> Any:
        """What no training changes, of images (B, 3, H, W): the images, unless a method computes more.

        Tensors in it, and in what `features` gives, have the images in their first dimension.
        """
        return images

    def features(self, stem: Any) -> Any:
        """What no label changes, from what `stem` gives: the same, unless a method computes more."""
        return stem

    def recognise(self, features: Any, labels: Any) -> Output:
        """What `forward` says without targets, from what `features` gives. To be overridden with either of these."""
        return self(features, labels)

    def training_stem(self, images: Tensor) -> Any:
        """What no training changes, of images (B, 3, H, W), as `learn` takes it: the stem, unless that takes more."""
        return self.stem(images)

    def learn(self, stem: Any, labels: Any, targets: Tensor) -> Output:
        """What `forward` says with targets, from what `training_stem` gives, where that is not the images."""
        return self(stem, labels, targets)

    @classmethod
    def learns_from_stem(cls) -> bool:
        """Whether `learn` is known to say what `forward` does: it is defined together with that, or further down."""
        learn, forward = (
            next(depth for depth, owner in enumerate(cls.__mro__) if name in vars(owner))
            for name in ("learn", "forward")
        )
        return learn <= forward

    def losses(self, output: Any, targets: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Scalars by name, already weighted; training minimises their sum.

        Several processes train as one (`parallel`), each on a share of the batch: a loss is that of the whole batch,
        and so the same number in all of them. The losses of `loss` are; an own one sums or averages by
        `parallel.reductions`.
        """
        raise ModelError(f"{self.title} has nothing to train: test it, or choose another MODEL.METHOD")

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch, from 1, in training mode, for what changes with the epochs.

        Where a training was killed within an epoch it is called again for it, so a second call must change nothing.
        """

    def begin_with(self, state: Mapping[str, Tensor]) -> None:
        """Takes over from another training, whose `trained_state` it was: all of it, if a method wants no less.

        Raises:
            ModelError: as `load_trained_state`.
        """
        self.load_trained_state(state)

    def groups(self) -> list[Group]:
        """All trained parameters, each in one group; empty where there is nothing to train."""
        return []

    def diagnostics(self, output: Any) -> dict[str, Tensor]:  # noqa: ARG002
        """Scalars for the log of a training step, by name."""
        return {}

    def trained_state(self) -> dict[str, Tensor]:
        """What training changes, by name: parameters and running statistics, live and not copied."""
        left_out = tuple(f"{name}." for name in self.frozen)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(left_out)}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `trained_state` gave.

        Raises:
            ModelError: if names or shapes are not those of this model; nothing is changed then.
        """
        own = self.trained_state()
        for name in sorted(own.keys() | state.keys()):
            ours, theirs = own.get(name), state.get(name)
            if ours is None or theirs is None or ours.shape != theirs.shape:
                sides = ["missing" if t is None else tuple(t.shape) for t in (ours, theirs)]
                raise ModelError(f"{name} is {sides[0]} in this model and {sides[1]} in the checkpoint")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def train(self, mode: bool = True) -> Self:
        """Switches what is trained; frozen submodules stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def chosen(table: Mapping[str, Chosen], name: str, key: str) -> Chosen:
    """What a table has under a name.

    Raises:
        ModelError: naming the key below MODEL, if it has nothing.
    """
    if name not in table:
        raise ModelError(f"MODEL.{key} must be one of {', '.join(table)}, not {name!r}")
    return table[name]
