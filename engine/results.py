"""Results as people and programs read them: a table, `results.json`, `results.csv`, `per_class.csv`, and scores.

A file of scores is an `.npz` with exactly four arrays, of I images and C labels: `scores` (I, C) floating point,
`targets` (I, C) in {0, 1}, `names` (C,) the labels and `images` (I,) the image files, both text.
Every file is written as a whole or not at all (`engine/atomic.py`).
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.atomic import atomic_write, make_folder
from engine.metrics import Metrics, MetricsError, checked
from errors import UserError
from files import open_regular

__all__ = [
    "Result",
    "ResultsError",
    "Scores",
    "ScoresError",
    "aligned",
    "format_table",
    "read_scores",
    "to_json",
    "write_results",
    "write_scores",
]

COLUMNS = (
    "P@3",
    "R@3",
    "F1@3",
    "P@5",
    "R@5",
    "F1@5",
    "mAP",
    "mAP_present",
    "CF1@3",
    "OP",
    "OR",
    "OF1",
    "CP",
    "CR",
    "CF1",
)


class ResultsError(UserError, ValueError):
    """Results that cannot be written; the message is one line."""


class ScoresError(UserError, ValueError):
    """Scores that are not as the module docstring says; the message is one line that begins with the path."""


class Result(NamedTuple):
    """Metrics of one method under one protocol.

    Attributes:
        method: such as "RAM" or "zero-shot CLIP".
        protocol: such as "ZSL" or "GZSL".
        metrics: of C classes.
        names: the C labels, in the order of the classes.
    """

    method: str
    protocol: str
    metrics: Metrics
    names: Sequence[str]


class Scores(NamedTuple):
    """A file of scores: scores (I, C) floating point, targets (I, C) bool, names (C) and images (I)."""

    scores: np.ndarray
    targets: np.ndarray
    names: list[str]
    images: list[str]


def format_table(results: Sequence[Result]) -> str:
    """A plain-text table, one row per result in the order given; percent with two decimals, no line break at the end.

    Columns are those of `COLUMNS` that a result has, `mAP_present` only where it differs from mAP, then all of what
    other tasks measure; "-" where a result lacks one.
    """
    summaries = [result.metrics.summary for result in results]
    known = {name for summary in summaries for name in summary}
    if all(summary.get("mAP_present") == summary.get("mAP") for summary in summaries):
        known.discard("mAP_present")
    of_other_tasks = dict.fromkeys(
        name for summary in summaries if summary.keys().isdisjoint(COLUMNS) for name in summary
    )
    columns = [*(name for name in COLUMNS if name in known), *of_other_tasks]
    rows = [["method", "protocol", *columns]]
    for method, protocol, metrics, _ in results:
        rows.append(
            [method, protocol, *(f"{metrics.summary[c]:.2f}" if c in metrics.summary else "-" for c in columns)]
        )
    return aligned(rows, left=2)


def aligned(rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Cells in columns of their own width below a head, the first row; the first `left` columns begin at the left."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    align = [*[str.ljust] * left, *[str.rjust] * (len(widths) - left)]
    ruled = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = ("  ".join(put(cell, width) for put, cell, width in zip(align, row, widths, strict=True)) for row in ruled)
    return "\n".join(line.rstrip() for line in lines)


def to_json(results: Sequence[Result], about: Mapping[str, Any]) -> str:
    """JSON text of `about`, where the results come from, and `results`: method -> protocol -> summary and counts.

    Raises:
        ResultsError: if two results have one method and protocol.
    """
    nested: dict[str, dict[str, dict[str, float]]] = {}
    for method, protocol, metrics, _ in results:
        if protocol in nested.setdefault(method, {}):
            raise ResultsError(f"two results are named {method!r}, {protocol!r}: give each a name of its own")
        nested[method][protocol] = metrics.counts | metrics.summary
    content = {"about": dict(about), "results": nested}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_results(folder: str | os.PathLike[str], results: Sequence[Result], about: Mapping[str, Any]) -> None:
    """Writes three files into `folder`, which is made if there is none; files of before are replaced.

    `about` says where the results come from (`engine/provenance.py`).

    `results.json` as `to_json`; `results.csv` with one row per method and protocol; `per_class.csv` with one row per
    method, protocol and label. All in percent and unrounded; a cell is empty where there is no value, such as the AP
    of a label without positives.

    Raises:
        ResultsError: as `to_json`, and if a result has not as many names as classes; nothing is written.
        WriteError: if the system refuses; each of the files is as before or complete.
    """
    folder = Path(folder)
    overall = [{"method": r.method, "protocol": r.protocol, **r.metrics.counts, **r.metrics.summary} for r in results]
    texts = {
        "results.json": to_json(results, about),
        "results.csv": to_csv(overall),
        "per_class.csv": to_csv([row for result in results for row in class_rows(result)]),
    }
    make_folder(folder)
    for name, text in texts.items():
        with atomic_write(folder / name, "w") as file:
            file.write(text)


def class_rows(result: Result) -> Iterator[dict[str, str | float | None]]:
    """The rows of `per_class.csv`, one per label: method, protocol, label and all per-class values; None for nan.

    Raises:
        ResultsError: while iterating, if the result has not as many names as classes.
    """
    method, protocol, metrics, names = result
    if len(names) != metrics.counts["classes"]:
        raise ResultsError(f"{method}, {protocol}: {len(names)} names for {metrics.counts['classes']} classes")
    columns = [array.tolist() for array in metrics.per_class.values()]
    for name, *values in zip(names, *columns, strict=True):
        cells = [None if np.isnan(value) else value for value in values]
        yield {"method": method, "protocol": protocol, "label": name} | dict(zip(metrics.per_class, cells, strict=True))


def to_csv(rows: Sequence[Mapping[str, str | float | None]]) -> str:
    """CSV text with a head; columns in the order in which the rows name them first.

    A cell is empty where a row lacks the column or holds None.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_scores(
    path: str | os.PathLike[str], scores: np.ndarray, targets: np.ndarray, names: Sequence[str], images: Sequence[str]
) -> None:
    """Writes a file of scores (module docstring), with the scores in the dtype they have and targets as uint8.

    Args:
        path: file to write; no suffix is added.
        scores: (I, C), floating point, finite.
        targets: (I, C), 0 or 1.
        names: C labels.
        images: I image files or other names of the images.

    Raises:
        ScoresError: if the shapes disagree or a value is not as said; nothing is written.
        WriteError: if the system refuses.
    """
    labels, files = np.asarray(names, dtype=str), np.asarray(images, dtype=str)
    measured = as_scores(path, scores, targets, labels, files)
    with atomic_write(path) as file:
        np.savez(file, scores=measured.scores, targets=measured.targets.astype(np.uint8), names=labels, images=files)


def read_scores(path: str | os.PathLike[str]) -> Scores:
    """The content of a file of scores; no pickle is ever opened.

    Raises:
        ScoresError: if the file is missing, broken, no `.npz`, or not as the module docstring says.
    """
    try:
        with open_regular(path) as file:  # np.load leaves a broken archive open
            archive = np.load(file, allow_pickle=False)
            arrays = dict(archive) if isinstance(archive, np.lib.npyio.NpzFile) else {}
    except Exception as error:  # numpy reads heads as pieces of Python, which fails in many ways
        reason = getattr(error, "strerror", None) or f"not an intact .npz of plain arrays ({type(error).__name__})"
        raise ScoresError(f"{path}: cannot be read, {reason}") from error
    if arrays.keys() != set(Scores._fields):
        raise ScoresError(
            f"{path}: its arrays are {', '.join(arrays) or 'none'}; expected are {', '.join(Scores._fields)}"
        )
    return as_scores(path, **arrays)


def as_scores(
    path: str | os.PathLike[str], scores: np.ndarray, targets: np.ndarray, names: np.ndarray, images: np.ndarray
) -> Scores:
    """The arrays, checked; ScoresError names `path`."""
    try:
        scores, targets = checked(scores, targets)
    except MetricsError as error:
        raise ScoresError(f"{path}: {error}") from error
    for key, array, length in (("names", names, scores.shape[1]), ("images", images, scores.shape[0])):
        if array.shape != (length,) or array.dtype.kind != "U":
            raise ScoresError(f"{path}: {key} are {array.dtype} {array.shape}, expected are {length} of text")
    return Scores(scores, targets, names.tolist(), images.tolist())
