"""NUS-WIDE's numbers of labels on a trained CLIP: scenes of drawn concepts, 925 labels in training and 1,006 in use.

Adapters and prompts are as they start. What a solver needs depends on the costs, and these on trained towers and real
pictures; its time is in what is measured here.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from datasets.transforms import test_transform
from datasets.worlds import records_of, scene_of
from tools.benchmarking.comparing import Case, at_precisions, longer
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import EMOJI, REFERENCE, Built, build
from tools.benchmarking.one_image import plain_image
from tools.benchmarking.precision import Precision
from tools.benchmarking.rounds import train_round
from tools.benchmarking.training import FEW, QUICK, plain_step

__all__ = ["measure", "shown"]


def measure(setting: Setting) -> Iterator[Measurement]:
    """A training step, and one scene that is asked for all labels."""
    for make in (a_step, one_scene):
        yield from at_precisions(partial(make, setting), setting)


def a_step(setting: Setting, precision: Precision) -> Case:
    """A step of the trainer on training scenes."""
    model = EMOJI._replace(images=QUICK if setting.quick else EMOJI.images)
    built = build(model, setting, precision)
    images, targets, names = shown(built, "train", model.images)
    step = train_round(built.method, built.cfg, names, setting.device, steps=1, batch=(images, targets))
    rival = longer(REFERENCE, partial(plain_step, built), FEW[setting.quick], len(names))
    flop = built.floor(built.cfg.INPUT.SIZE_TRAIN).train(model.images, built.lengths(names))
    return Case(f"emoji, training step, {len(names):,} labels, batch {model.images}", step, [rival], flop)


def one_scene(setting: Setting, precision: Precision) -> Case:
    """A test scene, with labels that are encoded beforehand; the reference encodes them for every image."""
    built = build(EMOJI, setting, precision)
    images, _, names = shown(built, "test", 1)
    with torch.no_grad():
        labels = built.method.eval().encode_labels(names)

    @torch.no_grad()
    def run() -> object:
        with built.autocast():
            return built.method.eval()(images.to(setting.device), labels)

    rival = longer(REFERENCE, partial(plain_image, built), FEW[setting.quick], len(names))
    flop = built.floor().recognise(1, len(names))
    return Case(f"emoji, one image, {len(names):,} labels", run, [rival], flop)


def shown(built: Built, split: str, count: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The first scenes of a split, (B, 3, H, W), their targets, (B, C), and the names of the labels.

    Raises:
        DataError: if a package is missing that scenes are drawn with.
    """
    cfg, records = built.cfg, records_of(f"{EMOJI.name}:{split}[:{count}]")
    transform = test_transform(size=cfg.INPUT.SIZE_TEST, mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)
    images = torch.stack([transform(scene_of(reference).image) for reference in records.images])
    targets = torch.tensor([[float(name in row) for name in records.classes] for row in records.labels])
    return images, targets, records.classes
