"""Encoding a list of labels that was not encoded before."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch

from tools.benchmarking.comparing import Case, at_precisions, longer
from tools.benchmarking.measuring import Measurement, Setting
from tools.benchmarking.models import BASE, REFERENCE, Built, build, label_names
from tools.benchmarking.precision import Precision

__all__ = ["measure", "new_labels", "plain_labels"]

LABELS = {True: 400, False: 10_000}  # quick or not
FEW = {True: (8, 24), False: (8, 200)}  # labels that the reference's time is taken from


def measure(setting: Setting) -> Iterator[Measurement]:
    """At every precision there is."""
    yield from at_precisions(partial(an_encoding, setting), setting)


def an_encoding(setting: Setting, precision: Precision) -> Case:
    """A list with all its names new."""
    built, count = build(BASE, setting, precision), LABELS[setting.quick]
    rival = longer(REFERENCE, partial(plain_labels, built), FEW[setting.quick], count)
    flop = built.floor().encode(built.lengths(label_names(count)))
    return Case(f"encoding {count:,} labels", new_labels(built, count), [rival], flop)


def new_labels(built: Built, count: int) -> Callable[[], object]:
    """A call that encodes labels, in another order every time: a list that was met before may have been kept."""
    names, turns = label_names(count), itertools.count()

    @torch.no_grad()
    def run() -> object:
        first = next(turns) % count
        with built.autocast():
            return built.method.encode_labels(names[first:] + names[:first])

    return run


def plain_labels(built: Built, count: int) -> Callable[[], object]:
    """A call that encodes labels by the reference."""
    reference, names = built.reference, label_names(count)

    @torch.no_grad()
    def run() -> object:
        return reference.encode(names)

    return run
