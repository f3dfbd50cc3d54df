"""Training steps: the trainer's, beside steps of the plain reference with the same optimisers and averages."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from engine.optim import optimizers
from tools.benchmarking.comparing import Case, Rival, at_precisions, longer
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import BASE, LARGE, REFERENCE, Built, Model, build, label_names
from tools.benchmarking.precision import Precision
from tools.benchmarking.rounds import averages, random_targets, train_round

__all__ = ["SEEN", "measure", "plain_step"]

SEEN = ((BASE, 48), (LARGE, 925))
MOST = 200  # labels that the reference takes: padded texts of more fill the memory
FEW = {True: (8, 24), False: (8, 200)}  # labels that its time is taken from where there are more; quick or not
QUICK = 2  # images of a batch, at most


def measure(setting: Setting) -> Iterator[Measurement]:
    """A step with 48 labels and one with 925."""
    for model, labels in SEEN:
        images = min(model.images, QUICK) if setting.quick else model.images
        yield from at_precisions(partial(a_step, model._replace(images=images), labels, setting), setting)


def a_step(model: Model, labels: int, setting: Setting, precision: Precision) -> Case:
    """A step of the trainer."""
    built, names = build(model, setting, precision), label_names(labels)
    step = train_round(built.method, built.cfg, names, setting.device, steps=1)
    plain = partial(plain_step, built)
    direct = labels <= MOST
    rival = Rival(REFERENCE, (plain(labels),)) if direct else longer(REFERENCE, plain, FEW[setting.quick], labels)
    flop = built.floor(built.cfg.INPUT.SIZE_TRAIN).train(model.images, built.lengths(names))
    return Case(f"training step, {labels:,} labels, batch {model.images}", step, [rival], flop)


def plain_step(built: Built, labels: int) -> Callable[[], None]:
    """A call that takes a training step with the plain reference, in float32."""
    method, reference, names = built.method, built.reference, label_names(labels)
    count = built.cfg.SOLVER.IMS_PER_BATCH
    images = torch.randn(count, 3, *built.cfg.INPUT.SIZE_TRAIN, device=built.device)
    targets = random_targets(count, labels).to(built.device)
    frozen = reference.teacher_labels(names)
    trained, ema = optimizers(method.groups()), averages(method, built.cfg, 1)
    scaler = torch.amp.GradScaler(built.device.type, enabled=False)

    def step() -> None:
        method.train()
        loss = reference.loss(images, names, targets, frozen)
        trained.zero_grad()
        loss.backward()
        trained.step(scaler, loss.isfinite())
        ema.update()

    return step
