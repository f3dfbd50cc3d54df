"""A file with a line for each picture that grows as they are answered, and goes on where it was killed."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from engine.atomic import WriteError, atomic_write
from errors import UserError

__all__ = ["OutputError", "Progress"]


class OutputError(UserError, ValueError):
    """Results that cannot be written where, or as, they are asked for."""


class Progress:
    """The lines, and beside them `NAME.progress.json`, which says what they answer and goes when all are there.

    Nothing is written before the first line.

    Args:
        target: what the lines become in the end; NAME is its name.
        lines: the file of lines; may be the target itself.
        head: first line, if there is one.
        picture: the picture that a line is of.
        identity: what is asked of which model, as plain values; a file is gone on with only under the same.

    Attributes:
        done: pictures that have a line.
        resumed: whether something was there to go on with.

    Raises:
        OutputError: naming the difference, if the lines answer something else; if the file is not one of these.
        WriteError: if the system refuses.
    """

    def __init__(
        self, target: Path, lines: Path, *, head: str | None, picture: Callable[[str], str], identity: Mapping[str, Any]
    ) -> None:
        self._target, self._lines, self._head, self._identity = target, lines, head, json.loads(json.dumps(identity))
        self._note = target.with_name(f"{target.name}.progress.json")
        self._file: IO[bytes] | None = None
        self.done: set[str] = set()
        self.resumed = self._note.is_file()
        if self.resumed:
            self._require_same()
            if lines.is_file():
                self._recover(picture)
        elif lines.exists():
            raise OutputError(f"{lines} is there already: remove it, or name another file")

    def add(self, lines: Sequence[str]) -> None:
        """Appends lines, which are on their way to the disk when this returns."""
        if not lines:
            return
        with refused(self._lines):
            if self._file is None:
                self._open()
            assert self._file is not None  # as it was opened
            self._file.write("".join(f"{line}\n" for line in lines).encode())
            self._file.flush()

    def stop(self) -> None:
        """Closes the file; what is there can be gone on with."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self, convert: Callable[[Iterator[str]], None] | None = None) -> None:
        """Makes the lines the result.

        Args:
            convert: is given the lines without the head and writes the target, after which they are removed; None: they
                are the target.
        """
        if self._file is not None:
            os.fsync(self._file.fileno())
        self.stop()
        if not self._lines.is_file():
            return
        if convert is not None:
            convert(self._read())
            self._lines.unlink()
        self._note.unlink(missing_ok=True)

    def _open(self) -> None:
        self._lines.parent.mkdir(parents=True, exist_ok=True)
        if not self.resumed:
            with atomic_write(self._note, "w") as file:
                file.write(json.dumps(self._identity, indent=2) + "\n")
        self._file = open(self._lines, "ab")  # noqa: SIM115 - closed by stop
        if self._head is not None and self._file.tell() == 0:
            self._file.write(f"{self._head}\n".encode())

    def _require_same(self) -> None:
        try:
            before = json.loads(self._note.read_text(encoding="utf-8"))
            differing = [key for key in self._identity | before if before.get(key, ...) != self._identity.get(key, ...)]
        except (OSError, ValueError, TypeError) as error:
            raise OutputError(f"{self._note} is broken: remove it and {self._lines}") from error
        if differing:
            raise OutputError(
                f"{self._target} was begun with other values of {', '.join(differing)}: ask the same again, or remove "
                f"{self._lines} and {self._note}"
            )

    def _recover(self, picture: Callable[[str], str]) -> None:
        """Drops an unfinished last line, and finds out what is done."""
        with refused(self._lines), open(self._lines, "rb+") as file:
            file.truncate(_end_of_lines(file))
        try:
            self.done = set(map(picture, self._read()))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise OutputError(f"{self._lines} holds lines that are not of this: remove it and {self._note}") from error

    def _read(self) -> Iterator[str]:
        with open(self._lines, encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file):
                if number or self._head is None:
                    yield line.removesuffix("\n")
                elif line != f"{self._head}\n":
                    raise ValueError(line)


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turns refusals of the operating system into one line."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: cannot write, {error.strerror}") from error


def _end_of_lines(file: IO[bytes]) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - 65_536, 0)
        file.seek(start)
        if (place := file.read(end - start).rfind(b"\n")) >= 0:
            return start + place + 1
        end = start
    return 0
