"""An evaluation: ZSL and GZSL, raw and averaged weights, from image files to metrics."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from datasets.build import Protocol, build_test, evaluated
from engine.ema import Ema
from engine.evaluate import evaluate, rows_of
from tools.benchmarking.comparing import Case, Rival, at_precisions
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import BASE, REFERENCE, Built, build
from tools.benchmarking.precision import Precision
from tools.benchmarking.rounds import averages

__all__ = ["measure", "plain_evaluation"]

IMAGES = {True: 2, False: 4}  # of each list; quick or not
WEIGHTS = 2  # raw and averaged
# The labels of the embedded world are as many as those of MS-COCO, 17 unseen and 65 in all; its images are enlarged.
SHAPES = (
    "DATASETS.NAMES", "shapes", "DATASETS.TRAIN", "shapes:train", "DATASETS.TEST", "shapes:test", "DATASETS.TEST_ZSL",
    "", "DATALOADER.NUM_WORKERS", "0",
)  # fmt: skip


def measure(setting: Setting) -> Iterator[Measurement]:
    """At every precision there is."""
    yield from at_precisions(partial(an_evaluation, setting), setting)


def an_evaluation(setting: Setting, precision: Precision) -> Case:
    """Both lists of labels by both sets of weights."""
    images = IMAGES[setting.quick]
    built = build(BASE, setting, precision, (*SHAPES, "DATASETS.SUBSET", str(images)))
    method = built.method.eval()
    protocols, ema = evaluated(built.cfg, build_test(built.cfg, "test")), averages(method, built.cfg, 1)
    run = partial(
        evaluate, rows_of(method, ema=ema), protocols, device=setting.device, autocast=precision.dtype,
        progress_bar=False,
    )  # fmt: skip
    plain = partial(plain_evaluation, built, protocols, ema)
    rivals = [Rival(REFERENCE, (plain(once=False),))]
    if not setting.quick:
        rivals.append(Rival(f"{REFERENCE}, texts once", (plain(once=True),)))
    labels = " and ".join(str(len(protocol.labels)) for protocol in protocols)
    return Case(f"evaluation, {labels} labels, batch {images}", run, rivals, _floor(built, protocols))


@torch.no_grad()
def plain_evaluation(built: Built, protocols: list[Protocol], ema: Ema, *, once: bool) -> Callable[[], list]:
    """A call that gives the reference's scores, batch by batch, by raw and by averaged weights.

    Args:
        built: whose weights are used.
        protocols: images and labels.
        ema: averages of the weights.
        once: texts are encoded beforehand and not for every batch.
    """
    reference = built.reference
    kept = {protocol.name: reference.encode(protocol.labels) for protocol in protocols} if once else {}

    def score(protocol: Protocol, images: torch.Tensor) -> torch.Tensor:
        labels = kept[protocol.name] if once else reference.encode(protocol.labels)
        return reference(images.to(built.device), labels).scores.cpu()

    @torch.no_grad()
    def run() -> list:
        found = []
        for protocol in protocols:
            for batch in protocol.loader:
                found.append(score(protocol, batch.images))
                with ema.applied():
                    found.append(score(protocol, batch.images))
        return found

    return run


def _floor(built: Built, protocols: list[Protocol]) -> float:
    """FLOP: an image that is asked for both lists is one."""
    asked = [(len(protocol.loader.dataset), len(protocol.labels)) for protocol in protocols]
    distinct = {path for protocol in protocols for path in protocol.loader.dataset.records.images}
    texts = sum(built.floor().prompt(built.lengths(protocol.labels)) for protocol in protocols)
    return built.floor().evaluate(len(distinct), asked, WEIGHTS) + WEIGHTS * texts
