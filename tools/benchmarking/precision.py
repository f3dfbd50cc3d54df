"""Precisions that SOLVER.AMP and TEST.AMP offer on a device."""

from typing import NamedTuple

import torch

from engine.run import autocast_dtype

__all__ = ["FLOAT32", "Precision", "precisions"]


class Precision(NamedTuple):
    """A value of the keys."""

    name: str
    dtype: torch.dtype | None  # None: float32 throughout

    @property
    def products(self) -> torch.dtype:
        """Of matrix products."""
        return self.dtype or torch.float32


FLOAT32 = Precision("off", None)


def precisions(device: torch.device) -> list[Precision]:
    """float32 first; behind it what else makes a difference on the device."""
    others = [Precision(name, autocast_dtype(name, device)) for name in ("fp16", "bf16")]
    return [FLOAT32, *(one for one in others if one.dtype is not None)]
