"""One image and many labels, which are encoded beforehand; the reference encodes them for every image."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from model import Labels
from tools.benchmarking.comparing import Case, Rival, at_precisions, longer
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import LARGE, REFERENCE, Built, build, label_names
from tools.benchmarking.precision import Precision

__all__ = ["measure", "plain_image", "random_labels", "recognition"]

LABELS = {True: (65, 1_006), False: (65, 1_006, 10_000)}  # quick or not
MOST = {True: 200, False: 2_000}  # labels that the reference encodes; quick or not
FEW = {True: (8, 24), False: (8, 200)}  # labels that its time is taken from where there are more


def measure(setting: Setting) -> Iterator[Measurement]:
    """Few labels and many."""
    for labels in LABELS[setting.quick]:
        yield from at_precisions(partial(an_image, labels, setting), setting)


def an_image(labels: int, setting: Setting, precision: Precision) -> Case:
    """An image with so many labels."""
    built = build(LARGE, setting, precision)
    plain = partial(plain_image, built)
    direct = labels <= MOST[setting.quick]
    rival = Rival(REFERENCE, (plain(labels),)) if direct else longer(REFERENCE, plain, FEW[setting.quick], labels)
    run, flop = recognition(built, 1, random_labels(built, labels)), built.floor().recognise(1, labels)
    return Case(f"one image, {labels:,} labels", run, [rival], flop)


def recognition(
    built: Built, images: int, labels: Labels, size: tuple[int, int] | None = None
) -> Callable[[], object]:  # fmt: skip
    """A call that scores random images."""
    method, pixels = built.method.eval(), built.images(images, size)

    @torch.no_grad()
    def run() -> object:
        with built.autocast():
            return method(pixels, labels)

    return run


def random_labels(built: Built, count: int) -> Labels:
    """So many labels: features of encoded ones, and of others that lie between two of them."""
    with torch.no_grad():
        known = built.method.encode_labels(label_names(64))
    pairs = torch.randint(64, (2, count), device=built.device)
    features, frozen = (part[pairs].mean(0) for part in (known.features, known.frozen))
    return Labels(tuple(map(str, range(count))), features, frozen)


def plain_image(built: Built, labels: int) -> Callable[[], object]:
    """A call that scores a random image by the reference."""
    reference, pixels, names = built.reference, built.images(1), label_names(labels)

    @torch.no_grad()
    def run() -> object:
        built.method.eval()
        return reference(pixels, reference.encode(names))

    return run
