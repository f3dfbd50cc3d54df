"""Attribute annotations in MATLAB files (up to version 7): variables, cells of text, tables of codes."""

import multiprocessing
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.records import DataError
from files import open_regular

__all__ = ["label_rows", "load", "texts"]


def load(path: Path, *names: str) -> dict[str, Any]:
    """The variables of these names.

    scipy's reader is compiled code that a few changed bytes can crash, so it runs in a process of its own.

    Raises:
        DataError: if the file is no MATLAB file, of version 7.3, without one of them, or crashes the reader.
    """
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    here, there = context.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, which the child does not use
        process = context.Process(target=_send, args=(there, path, names))
        process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        raise DataError(f"{path}: it crashes the reader of MATLAB files: damaged, download it again") from None
    finally:
        here.close()
        process.terminate()
        process.join()
    if isinstance(found, DataError):
        raise found
    return found


def _send(there: Any, path: Path, names: Sequence[str]) -> None:
    """What was read, or why not, to the process that asked."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        there.send(_read(path, names))
    except DataError as error:
        there.send(error)


def _read(path: Path, names: Sequence[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        with open_regular(path) as file:
            variables = loadmat(file, variable_names=list(names))
    except NotImplementedError as error:
        raise DataError(
            f"{path}: a MATLAB file of version 7.3, which the official one is not: download it again, or save it in "
            "MATLAB with '-v7'"
        ) from error
    except Exception as error:  # scipy's reader raises a dozen types
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a MATLAB file, download it again: {reason}") from error
    for name in names:
        if name not in variables:
            raise DataError(f"{path}: there is no variable {name!r} in it: is it the file of another data set?")
    return {name: variables[name] for name in names}


def texts(cells: Any, where: str) -> tuple[str, ...]:
    """The texts of a cell array, without blanks around them.

    Raises:
        DataError: naming the cell, counted from 1, that is empty or no text.
    """
    texts = []
    for i, cell in enumerate(np.ravel(cells), 1):
        inner = np.ravel(cell)
        if inner.size != 1 or not isinstance(inner[0], str) or not inner[0].strip():
            raise DataError(f"{where}, cell {i}: expected a text, found {' '.join(str(cell).split())[:80]!r}")
        texts.append(inner[0].strip())
    return tuple(texts)


def label_rows(
    table: Any, names: Sequence[str], *, where: str, positive: tuple[int, ...], negative: tuple[int, ...]
) -> list[tuple[str, ...]]:
    """The names of the positive columns of each row, in the order of the columns.

    Args:
        table: (images, names), codes.
        names: of the columns.
        where: the file and the variable, for messages.
        positive: codes of a label that the image has.
        negative: codes of one that it has not.

    Raises:
        DataError: naming row, counted from 1, and column of any other code; or if there is not one column per name.
    """
    if table.ndim != 2 or table.shape[1] != len(names):
        raise DataError(f"{where}: expected a column for each of {len(names)} attributes, found shape {table.shape}")
    for row, column in np.argwhere(~np.isin(table, positive + negative)):
        expected = ", ".join(map(str, sorted(positive + negative)))
        code = table[row, column]
        raise DataError(f"{where}, row {row + 1}, attribute {names[column]!r}: {code} is none of {expected}")
    return [tuple(names[c] for c in np.flatnonzero(row).tolist()) for row in np.isin(table, positive)]
