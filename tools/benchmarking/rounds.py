"""Calls that train and test a method on random batches: the method alone, without reading files."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor
from yacs.config import CfgNode

from configs import AUTO
from engine.ema import Ema, decay_over
from engine.optim import optimizers
from engine.run import autocast_dtype
from engine.train import Trainer
from model import Method

__all__ = ["averages", "random_targets", "test_round", "train_round"]

PRESENT = 0.05  # of the labels of an image


def test_round(
    method: Method, cfg: CfgNode, names: Sequence[str], device: torch.device, *, steps: int
) -> Callable[[], None]:
    """A call that scores a batch of SOLVER.IMS_PER_BATCH images, some times; labels are encoded beforehand."""
    images = torch.randn(cfg.SOLVER.IMS_PER_BATCH, 3, *cfg.INPUT.SIZE_TEST, device=device)
    precision = autocast_dtype(cfg.TEST.AMP, device)
    method.eval()
    with torch.no_grad():
        labels = method.encode_labels(names)

    @torch.no_grad()
    def run() -> None:
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            for _ in range(steps):
                method(images, labels)

    return run


test_round.__test__ = False  # type: ignore[attr-defined]  # pytest's mark of what is no test


def train_round(
    method: Method,
    cfg: CfgNode,
    names: Sequence[str],
    device: torch.device,
    *,
    steps: int,
    batch: tuple[Tensor, Tensor] | None = None,
) -> Callable[[], None]:
    """A call that trains on a batch for some steps: images and targets, or SOLVER.IMS_PER_BATCH random ones."""
    precision = autocast_dtype(cfg.SOLVER.AMP, device)
    count = cfg.SOLVER.IMS_PER_BATCH
    images, targets = batch or (torch.randn(count, 3, *cfg.INPUT.SIZE_TRAIN), random_targets(count, len(names)))
    batches = [SimpleNamespace(images=images, targets=targets, paths=["none"] * len(images))] * steps
    trainer = Trainer(
        model=method, names=names, optimizers=optimizers(method.groups()), set_rates=lambda _: None,
        rates_per_step=True, ema=averages(method, cfg, steps) if cfg.MODEL.USE_EMA else None,
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16), device=device, autocast=precision,
        log=lambda **_: None, log_period=steps, skip_nonfinite=True, progress_bar=False,
    )  # fmt: skip
    return lambda: trainer.epoch(1, batches)


def averages(method: Method, cfg: CfgNode, steps: int) -> Ema:
    """The average of what is trained in so many steps."""
    decay = decay_over(steps) if cfg.MODEL.EMA_DECAY == AUTO else cfg.MODEL.EMA_DECAY
    return Ema(method.trained_state(), decay=decay, copied=method.not_averaged)


def random_targets(images: int, labels: int) -> Tensor:
    """Which labels are present, (B, C); every image has one."""
    targets = (torch.rand(images, labels) < PRESENT).float()
    targets[:, 0] = 1
    return targets
