"""Optimisers of the towers; a parameter group's rate is its `factor` times the schedule's."""

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

__all__ = ["adamw", "muon"]


def adamw(model: Any) -> list[Optimizer]:
    """AdamW, with weight decay on matrices; the logit scale learns ten times as fast."""
    return [torch.optim.AdamW(_groups(model, ()), fused=True)]


def muon(model: Any) -> list[Optimizer]:
    """Muon on the matrices of the transformer blocks, AdamW on everything else.

    On drawn concepts it needs a third of AdamW's images (K. Jordan et al., Muon, 2024, in torch.optim).
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "resblocks" in name]
    blocks = torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    blocks.param_groups[0]["factor"] = 1.0
    return [blocks, torch.optim.AdamW(_groups(model, matrices), betas=(0.9, 0.98), fused=True)]


def _groups(model: Any, without: list[nn.Parameter] | tuple[()]) -> list[dict[str, Any]]:
    left_out = {id(p) for p in without}
    plain = [p for name, p in model.named_parameters() if name != "logit_scale" and id(p) not in left_out]
    return [
        {"params": [p for p in plain if p.ndim >= 2], "weight_decay": 0.05, "factor": 1.0},
        {"params": [p for p in plain if p.ndim < 2], "weight_decay": 0.0, "factor": 1.0},
        {"params": [model.logit_scale], "weight_decay": 0.0, "factor": 10.0},
    ]
