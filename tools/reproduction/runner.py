"""Several programs at once: each on its share of the processor or on a GPU, with its output in a log of its own."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from engine.atomic import make_folder
from errors import UserError

__all__ = ["Failure", "Step", "Task", "Usage", "environments", "run_all"]

PATIENCE = 10.0  # seconds in which a child that is asked to end may do so
POLL = 0.1


class Usage(NamedTuple):
    """What a task took."""

    seconds: float
    peak: int  # of its largest process, in the unit of the system (`getrusage`)


class Failure(NamedTuple):
    """A task that did not get to its end."""

    name: str
    log: Path
    why: str


Step = list[str]  # a command


class Task(NamedTuple):
    """Programs that run one after another.

    Attributes:
        name: what it is called when something is said of it.
        steps: gives the commands, called when the task begins.
        log: where their output goes, behind what is there.
        done: called when all have ended well.
        after: name of a task that has to be done first.
        alone: nothing else runs meanwhile.
    """

    name: str
    steps: Callable[[], list[Step]]
    log: Path
    done: Callable[[Usage], None]
    after: str = ""
    alone: bool = False


@dataclass
class _Active:
    task: Task
    slot: int
    left: list[Step]
    process: subprocess.Popen[bytes]
    begun: float
    peak: int = 0


@dataclass
class _Runner:
    waiting: list[Task]
    slots: Sequence[Mapping[str, str]]
    said: Callable[[str, str, Any], None]
    kept_open: Sequence[int]
    active: list[_Active] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def launch(self) -> None:
        """Begins what may begin."""
        for task in list(self.waiting):
            if any(task.after == failure.name for failure in self.failures):
                self.waiting.remove(task)
                self.fail(Failure(task.name, task.log, f"{task.after} failed, which it begins with"))
        for task in list(self.waiting):
            free = [slot for slot in range(len(self.slots)) if slot not in [one.slot for one in self.active]]
            held = {one.name for one in self.waiting} | {one.task.name for one in self.active}
            if not free or any(one.task.alone for one in self.active) or (task.alone and self.active):
                return
            if task.after not in held:
                self.waiting.remove(task)
                self.begin(task, free[0])

    def begin(self, task: Task, slot: int) -> None:
        self.said("begins", task.name, None)
        try:
            make_folder(task.log.parent)
            first, *left = task.steps()
            self.active.append(_Active(task, slot, left, self.start(task, slot, first), time.monotonic()))
        except (UserError, OSError) as error:
            self.fail(Failure(task.name, task.log, str(error)))

    def start(self, task: Task, slot: int, step: Step) -> subprocess.Popen[bytes]:
        with open(task.log, "ab") as log:
            log.write(f"\n$ {shlex.join(step)}\n".encode())
            log.flush()
            return subprocess.Popen(
                step, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(self.slots[slot]),
                start_new_session=True, pass_fds=self.kept_open,
            )  # fmt: skip

    def poll(self) -> None:
        """Goes on with what has ended a step."""
        for one in list(self.active):
            pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
            if pid == 0:
                continue
            one.process.returncode = os.waitstatus_to_exitcode(status)
            one.peak = max(one.peak, usage.ru_maxrss)
            if one.process.returncode == 0 and one.left:
                self.go_on(one)
                continue
            self.active.remove(one)
            if one.process.returncode == 0:
                self.complete(one.task, Usage(time.monotonic() - one.begun, one.peak))
            else:
                self.fail(Failure(one.task.name, one.task.log, _last_words(one.task.log, one.process.returncode)))

    def go_on(self, one: _Active) -> None:
        """The next step."""
        try:
            one.process = self.start(one.task, one.slot, one.left.pop(0))
        except OSError as error:  # a full disk
            self.active.remove(one)
            self.fail(Failure(one.task.name, one.task.log, str(error)))

    def complete(self, task: Task, used: Usage) -> None:
        try:
            task.done(used)
        except UserError as error:
            self.fail(Failure(task.name, task.log, str(error)))
        else:
            self.said("done", task.name, used)

    def fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        self.said("failed", failure.name, failure)

    def end(self) -> None:
        """Ends the children and theirs, first asking."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            for one in self.active:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.process.pid, kind)
            deadline = time.monotonic() + PATIENCE
            while any(one.process.poll() is None for one in self.active) and time.monotonic() < deadline:
                time.sleep(POLL)


def run_all(
    tasks: Sequence[Task], slots: Sequence[Mapping[str, str]], said: Callable[[str, str, Any], None],
    *, kept_open: Sequence[int] = (),
) -> list[Failure]:  # fmt: skip
    """Runs tasks, as many at once as there are slots; gives those that failed, which stop no other.

    On an interrupt, a request to end or an error of its own it ends all that is under way.

    Args:
        tasks: in the order in which they begin.
        slots: the environment of the programs in each.
        said: told that a task "begins", is "done" (with its `Usage`) or has "failed" (with its `Failure`).
        kept_open: file descriptors that the programs inherit.
    """
    runner = _Runner(list(tasks), slots, said, kept_open)
    ending = (signal.SIGTERM, signal.SIGHUP)
    with _interrupted_by(*(one for one in ending if signal.getsignal(one) != signal.SIG_IGN)):  # nohup ignores one
        try:
            while runner.waiting or runner.active:
                runner.launch()
                runner.poll()
                time.sleep(POLL)
        finally:
            runner.end()
    return runner.failures


def environments(jobs: int, *, cores: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each slot: a share of the cores, and a GPU if there are any.

    Args:
        jobs: how many at once.
        cores: of the machine.
        gpus: their numbers or names for CUDA_VISIBLE_DEVICES; none leaves that as it is.
    """
    made = []
    for slot in range(jobs):
        threads = min(max(1, cores // jobs), _threads(os.environ.get("OMP_NUM_THREADS", "")) or cores)
        # The allocator of glibc as the Makefile sets it; bars are drawn into a file.
        env = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "TQDM_MININTERVAL": "10"}
        env |= os.environ | {"OMP_NUM_THREADS": str(threads)}
        made.append(env | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}))
    return made


def _threads(text: str) -> int:
    """Of OMP_NUM_THREADS, such as "4", or "4,2" for what is nested; 0 where it says nothing."""
    first = text.partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """A request to end is an interrupt meanwhile."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {one: signal.signal(one, interrupt) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _last_words(log: Path, code: int) -> str:
    """The error that the last program ended with, or its last line."""
    output = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].partition("\n")[2]
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")] or lines or ["it said nothing"]
    return f"{said[-1].removeprefix('error: ')} (exit code {code})"
