"""Ranks of tools/tag_dataset.py in forked processes, shot and started again; what they did and how they ended.

Used by `tools/chaos_tagging.py`.
"""

import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch

from engine import cli
from tagging.shards import Shard, Tagging, Tally
from tools import tag_dataset

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FULL = 1000  # bytes of a file that the disk takes where it counts as full; messages are shorter, outputs are not


class Event(NamedTuple):
    """A shard that was begun or left."""

    seconds: float
    process: int
    what: str  # begun, done, failed; or killed, of a process
    shard: str


class End(NamedTuple):
    """How a process ended."""

    status: int  # exit code, or -signal
    shot: signal.Signals | None
    full: bool  # whether the disk was
    said: str

    @property
    def explained(self) -> bool:
        """Whether a shot or a full disk was the reason; one that was shot may have been through before."""
        codes = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
        last = (self.said.splitlines() or [""])[-1].rpartition("\r")[2]
        refused = self.status == 2 and "error: " in last and last.endswith("cannot write, File too large")
        return (self.shot is not None and self.status in codes[self.shot]) or (self.full and refused)


class Ranks:
    """Processes that tag; a context, at the end of which none is left.

    Args:
        line: the command line of tools/tag_dataset.py.
        count: of the ranks.
        full_disk: a rank that begins alone, on a full disk, and again when there is room; None: none of them.

    Attributes:
        events: what they did, once all have ended.
    """

    def __init__(self, line: Sequence[str], count: int, full_disk: int | None = None) -> None:
        self._line, self._count, self._full = list(line), count, full_disk
        self._heard, self._say = os.pipe()
        os.set_blocking(self._heard, False)
        self._alive: dict[int, int] = {}  # process -> rank
        self._shot: dict[int, signal.Signals] = {}
        self._said: dict[int, int] = {}  # process -> where it writes to
        self._filled: set[int] = set()
        self._text, self._ends = b"", list[End]()
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        """Starts them, all others once the disk is no longer full."""
        if self._full is not None:
            self._start(self._full, full=True)
            while self._filled & set(self._alive):
                self._watch(time.monotonic() + 0.01)
        for rank in set(range(self._count)) - {self._full}:
            self._start(rank, full=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Kills what is left."""
        for process in self._alive:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        for file in (self._heard, self._say, *self._said.values()):
            os.close(file)

    def shoot(self, drawn: random.Random, within: float) -> bool:
        """Sends a signal to one of them after at most so many seconds; False if all have ended by then."""
        self._watch(time.monotonic() + drawn.uniform(0, within))
        targets = sorted(set(self._alive) - set(self._shot))
        if not targets:
            return False
        process, kind = drawn.choice(targets), drawn.choice(SIGNALS)
        self._shot[process] = kind
        if kind == signal.SIGKILL:
            self.events.append(Event(time.monotonic(), process, "killed", ""))
        os.kill(process, kind)
        return True

    def wait(self, patience: float) -> list[End]:
        """How all ended, also those that were started again."""
        self._watch(time.monotonic() + patience)
        if self._alive:
            self._ends.append(End(1, None, full=False, said=f"hung for {patience} s"))
        return self._ends

    def _watch(self, until: float) -> None:
        """Starts again what was shot or found the disk full, until all have ended or the time has come."""
        while self._alive and time.monotonic() < until:
            time.sleep(0.002)
            self._hear()
            for process, rank in list(self._alive.items()):
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    del self._alive[process]
                    said = os.pread(self._said[process], 10_000, 0).decode()
                    code, shot = os.waitstatus_to_exitcode(status), self._shot.get(process)
                    self._ends.append(End(code, shot, process in self._filled, said))
                    if self._ends[-1].explained:
                        self._start(rank, full=False)
        self._hear()

    def _hear(self) -> None:
        try:
            self._text += os.read(self._heard, 1 << 20)
        except BlockingIOError:
            return
        *lines, self._text = self._text.split(b"\n")
        for seconds, process, what, shard in (line.decode().split(" ", 3) for line in lines):
            self.events.append(Event(float(seconds), int(process), what, shard))

    def _start(self, rank: int, *, full: bool) -> None:
        said = os.memfd_create("said")
        process = os.fork()
        if process == 0:
            self._tag(rank, said, full=full)
        self._alive[process], self._said[process] = rank, said
        self._filled |= {process} if full else set()

    def _tag(self, rank: int, said: int, *, full: bool) -> None:
        """The forked process: tags, and ends."""
        code = 1
        try:
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.stdout, sys.stderr = (open(file, "w", buffering=1) for file in (1, 2))  # noqa: SIM115
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            torch.set_num_threads(1)  # as those of the parent did not come along
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(self._count))
            tag_dataset.Tagging = heard(self._say)  # type: ignore[misc]
            if full:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, resource.RLIM_INFINITY))
            code = cli.run(self._run)
        except BaseException:  # noqa: BLE001 - whatever it is, it must not get into the parent's code
            traceback.print_exc()
        finally:
            os._exit(code)

    def _run(self) -> int:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return tag_dataset.main(self._line)


def heard(file: int) -> type[Tagging]:
    """Taggings that say in a pipe what they begin and leave."""

    class Heard(Tagging):
        def __call__(self, shard: Shard) -> Tally:
            self._tell("begun", shard)
            try:
                tally = super().__call__(shard)
            except BaseException:
                self._tell("failed", shard)
                raise
            self._tell("done", shard)
            return tally

        def _tell(self, what: str, shard: Shard) -> None:
            os.write(file, f"{time.monotonic()} {os.getpid()} {what} {shard.name}\n".encode())

    return Heard
