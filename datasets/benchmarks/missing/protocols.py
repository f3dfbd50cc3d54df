"""Protocols of recognition with missing labels, as published numbers are measured by them. No label is unseen.

partial    Of all labels of all training images, present and absent ones, a share is known (SST, SARB). The lists hold
           all of them; which ones training is told is drawn when it begins, DATASETS.KNOWN 0.1 to 0.9 with seed 0.
largeloss  One present label of each training image is known (ROLE, Cole et al., CVPR 2021; LargeLoss, CVPR 2022). Four
           fifths of the images train, the others have all labels and are for choosing an epoch.
splc       The same without validation images, with the label that a published list names (SPLC, SCPNet).

Which entries are drawn depends on the order of images and classes, so that each data set is read in its protocol's.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, require_distinct
from datasets.benchmarks.missing import coco, cub, nus, vg200, voc
from datasets.benchmarks.missing.sources import Sources
from datasets.formats.release import only_listed
from datasets.records import Records
from datasets.thinning import SINGLE, thinned, told

__all__ = ["PROTOCOLS", "READERS", "SEED", "prepare"]

READERS: Mapping[tuple[str, str], Callable[[Downloads, Progress], Sources]] = {  # of benchmark and protocol
    ("coco", "partial"): coco.partial, ("coco", "largeloss"): coco.largeloss, ("coco", "splc"): coco.splc,
    ("voc2007", "partial"): voc.partial,
    ("voc2012", "largeloss"): voc.largeloss, ("voc2012", "splc"): voc.splc,
    ("vg200", "partial"): vg200.partial,
    ("nus", "largeloss"): nus.largeloss, ("nus", "splc"): nus.splc,
    ("cub", "largeloss"): cub.largeloss, ("cub", "splc"): cub.splc,
}  # fmt: skip
PROTOCOLS = tuple(dict.fromkeys(protocol for _, protocol in READERS))
SEED, VALIDATION = 1200, 0.2  # of both draws of LargeLoss; share of its images for validation
RULES = {
    "partial": "all images with all labels; training is told a share of them, DATASETS.KNOWN, drawn over this list",
    "largeloss": "one present label of each training image; validation images have all labels",
    "splc": "one present label of each training image, by the published list",
}


class _Parts(NamedTuple):
    train: Records
    val: Records | None


def prepare(
    downloads: Downloads, *, benchmark: str, protocol: str, seed: int = SEED, progress: Progress = plain
) -> Lists:
    """The lists of a data set under a protocol.

    Args:
        downloads: the official files, see the file of the data set.
        benchmark: with the next one a key of `READERS`.
        protocol: see the module.
        seed: of LargeLoss's draws.
        progress: shows the progress.

    Raises:
        MissingFileError: if a file is needed and not there.
        DataError: if a file is not what its name says, or a list would be empty.
    """
    sources = READERS[benchmark, protocol](downloads, progress)
    parts = _parts(sources.train, protocol, seed)
    drawn = protocol == "largeloss"
    origin = {
        "benchmark": benchmark,
        "protocol": protocol,
        "rule": RULES[protocol],
        "seed": seed if drawn else None,
        "exact": sources.exact and (seed == SEED or not drawn),
        "sources": downloads.checksums(),
    }
    lists = Lists(parts.train, sources.test, None, parts.val, origin, sources.notes)
    require_distinct(lists, sources.train.source)
    return lists


def _parts(train: Records, protocol: str, seed: int) -> _Parts:
    if protocol == "partial":
        return _Parts(train, None)
    if protocol == "splc":
        return _Parts(only_listed(train), None)
    observed, _ = told(thinned(train, SINGLE, seed), keep_unknown=True)
    order = np.random.RandomState(seed).permutation(len(train.images))
    trained = len(order) - round(VALIDATION * len(order))
    return _Parts(observed.rows(sorted(order[:trained])), train.rows(sorted(order[trained:])))
