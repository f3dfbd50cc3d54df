"""Methods that have parameters of each label's own, and so know no labels but those that they were built with.

They stand in `FIXED_LABELS` of `model/build.py`.

C labels.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.method import Method, ModelError

__all__ = ["FixedLabelsMethod"]


class FixedLabelsMethod(Method):
    """A method of fixed labels.

    Args:
        labels: all that will be asked for.
    """

    names: Tensor

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = tuple(labels)
        # What is trained means nothing without the names, so they are part of it.
        self.register_buffer("names", torch.tensor(list("\n".join(labels).encode()), dtype=torch.uint8))

    def rows(self, names: Sequence[str]) -> Tensor:
        """Which of the labels the names are: (C,), int64.

        Raises:
            ModelError: if one is none of them.
        """
        known = {name: row for row, name in enumerate(self.labels)}
        if unknown := [name for name in names if name not in known]:
            raise ModelError(
                f"{self.title} knows {len(known)} labels, fixed in training, and {unknown[0]!r} is not one"
            )
        return torch.tensor([known[name] for name in names], device=self.names.device)

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `trained_state` gave.

        Raises:
            ModelError: if it is of other labels, or as `Method.load_trained_state`.
        """
        if "names" in state:
            theirs = bytes(state["names"].tolist()).decode().split("\n")
            if differing := set(theirs) ^ set(self.labels):
                raise ModelError(f"{self.title} was trained for other labels: {min(differing)!r} is on one side only")
            if tuple(theirs) != self.labels:
                raise ModelError(f"{self.title} was trained for the same labels in another order")
        super().load_trained_state(state)
