"""Predictions as files: CSV, JSON lines, JSON, Parquet, or a text file for each picture; by the ending of the name.

All but the first two are kept as JSON lines in `NAME.part` until the last picture is done.
"""

import csv
import importlib.util
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from engine.atomic import atomic_write
from tagging.inputs import Listed, files_of
from tagging.predictor import Prediction
from tagging.progress import OutputError, Progress, refused

__all__ = ["Output", "open_output"]

SEPARATOR = "|"  # between the labels of a cell
ROWS = 4096  # of a Parquet file that are held at once


class Form(NamedTuple):
    """How a kind of file is made."""

    head: Callable[[str], str] | None  # what the numbers are called -> first line
    line: Callable[[Prediction, str], str]
    picture: Callable[[str], str]  # of a line
    convert: Callable[[Iterable[str], Path, str], None] | None = None  # lines to the file; None: they are the file
    beside: Callable[[Prediction, Path], None] | None = None  # writes a picture's own file


class Output:
    """A file, or a folder of files, of predictions; a context, at the end of which what is written stays.

    Attributes:
        done: pictures that were in it from the beginning.
    """

    def __init__(self, target: Path, form: Form, progress: Progress, texts: Mapping[str, Path], numbers: str) -> None:
        self._target, self._form, self._progress, self._texts = target, form, progress, texts
        self._numbers = numbers
        self.done = frozenset(progress.done)

    def __enter__(self) -> "Output":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file, which can be gone on with unless it is finished."""
        self._progress.stop()

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Writes those that were not there from the beginning.

        Raises:
            WriteError: if the system refuses.
        """
        new = [prediction for prediction in predictions if prediction.picture not in self.done]
        if self._form.beside is not None:
            for prediction in new:
                self._form.beside(prediction, self._texts[prediction.picture])
        self._progress.add([self._form.line(prediction, self._numbers) for prediction in new])

    def finish(self) -> None:
        """Says that no more will come; nothing is written if nothing came.

        Raises:
            WriteError: if the system refuses.
        """
        convert = self._form.convert
        with refused(self._target):
            self._progress.finish(
                None if convert is None else lambda lines: convert(lines, self._target, self._numbers)
            )


def open_output(
    out: str, pictures: Sequence[Listed], labels: Iterable[str], *, numbers: str, identity: Mapping[str, Any]
) -> Output:
    """The output of a name, begun anew or gone on with.

    Args:
        out: a name that ends in .csv, .json, .jsonl or .parquet, or a folder.
        pictures: all that will be predicted.
        labels: all that may be found.
        numbers: what to call them: "probabilities" or "scores".
        identity: see `Progress`.

    Raises:
        OutputError: in one line, if there is no such form, something else is there already, or a label does not fit.
        DataError: if two pictures would have the same text file.
    """
    target = Path(os.path.abspath(out))
    folder = target.is_dir() or out.endswith(("/", os.sep))
    suffix = "" if folder else target.suffix.lower()
    if suffix not in FORMS or not target.name:
        raise OutputError(f"--out {out}: the name ends in {', '.join(filter(None, FORMS))}, or is that of a folder")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise OutputError(f"--out {out} needs pyarrow: pip install pyarrow, or write .jsonl")
    if suffix == ".csv" and (clash := next((label for label in labels if SEPARATOR in label), None)):
        raise OutputError(f"--out {out}: {SEPARATOR} separates labels in a CSV, and {clash!r} has one: write .jsonl")
    form = FORMS[suffix]
    shown = Path(os.path.normpath(out))
    lines = shown if form.convert is None else shown.with_name(f"{shown.name}.part")
    head = None if form.head is None else form.head(numbers)
    progress = Progress(shown, lines, head=head, picture=form.picture, identity=identity)
    texts = files_of(pictures, shown, ".txt") if form.beside is not None else {}
    if not progress.resumed:
        _require_free([*texts.values()] if texts else [shown])
    return Output(shown, form, progress, texts, numbers)


def _json_line(prediction: Prediction, numbers: str) -> str:
    values = {"image": prediction.picture, "labels": prediction.labels, numbers: _rounded(prediction)}
    return json.dumps(values, ensure_ascii=False)


def _csv_line(prediction: Prediction, numbers: str) -> str:  # noqa: ARG001 - the head names them
    cell = io.StringIO()
    values = (SEPARATOR.join(prediction.labels), SEPARATOR.join(map(str, _rounded(prediction))))
    csv.writer(cell, lineterminator="").writerow((prediction.picture, *values))
    return cell.getvalue()


def _rounded(prediction: Prediction) -> list[float]:
    return [float(f"{value:.6g}") for value in prediction.probabilities]


def _whole_json(lines: Iterable[str], path: Path, numbers: str) -> None:  # noqa: ARG001
    with atomic_write(path, "w") as file:
        for number, line in enumerate(lines):
            file.write(f",\n{line}" if number else f"[\n{line}")
        file.write("\n]\n")


def _parquet(lines: Iterable[str], path: Path, numbers: str) -> None:
    arrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    columns = {"image": arrow.string(), "labels": arrow.list_(arrow.string()), numbers: arrow.list_(arrow.float32())}
    schema = arrow.schema(list(columns.items()))
    rows: Iterator[Any] = map(json.loads, lines)
    with atomic_write(path) as file, parquet.ParquetWriter(file, schema) as writer:
        while some := list(islice(rows, ROWS)):
            writer.write_table(arrow.Table.from_pylist(some, schema=schema))


def _text_file(prediction: Prediction, path: Path) -> None:
    """A label a line, as training reads it."""
    with refused(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{label}\n" for label in prediction.labels), encoding="utf-8", newline="\n")


def _require_free(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            raise OutputError(f"{path} is there already: remove it, or name another file or folder")


def _nothing(lines: Iterable[str], path: Path, numbers: str) -> None:
    """Each picture has its own file already."""


FORMS = {
    ".csv": Form(lambda numbers: f"image,labels,{numbers}", _csv_line, lambda line: next(csv.reader([line]))[0]),
    ".jsonl": Form(None, _json_line, lambda line: json.loads(line)["image"]),
    ".json": Form(None, _json_line, lambda line: json.loads(line)["image"], _whole_json),
    ".parquet": Form(None, _json_line, lambda line: json.loads(line)["image"], _parquet),
    "": Form(None, _json_line, lambda line: json.loads(line)["image"], _nothing, _text_file),
}
