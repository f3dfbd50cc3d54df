"""Jobs to programs: what is done already, the commands of what is not, and the result file when they have ended."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from engine.state import load_state
from tools.reproduction import outcomes, speed
from tools.reproduction.identity import INIT
from tools.reproduction.local import FOLDER, Finished, finished, interrupted
from tools.reproduction.outcomes import Outcome, OutcomeError, content_of, host_peak, log_of, seconds_of, write
from tools.reproduction.plan import ROOT, Job, Plan
from tools.reproduction.runner import Step, Task, Usage
from tools.reproduction.tables import TableError

__all__ = ["DONE", "LEFT", "OPEN", "RESUMED", "Work"]

DONE, LEFT, RESUMED, OPEN = "done", "not asked for", "interrupted", "to do"


class Work:
    """What a plan still needs on this machine.

    Args:
        plan: the tables.
        output: OUTPUT_DIR; runs get folders in `reproduce` there.
        out: folder of the result files.
        committed: folder below which result files of other machines lie.
        only: names of the runs that are made now, as in tables.yml; none: all.

    Raises:
        TableError: if no row of the tables is such a run.
    """

    def __init__(self, plan: Plan, output: Path, out: Path, committed: Path, only: Sequence[str] = ()) -> None:
        self.plan, self.output, self.folder, self.out = plan, output, output / FOLDER, out
        self._asked = _asked(plan, only)
        self._places = (out, self.folder / "results", committed)
        self._kept = [folder.resolve() for folder in (out, committed)]
        self.look()

    def look(self) -> None:
        """Finds what is there."""
        self.outcomes, self.speeds = outcomes.collect(self._places), speed.collect(self._places)
        self.finished, self.interrupted = finished(self.output), interrupted(self.folder)

    def take_over(self) -> None:
        """Writes result files of what was found finished, and brings those of the output folder to `out`."""
        for job in self.plan.jobs:
            known = self.outcomes.get(job.identity)
            if known is None and job.identity in self.finished:
                self.outcomes[job.identity] = self._written(job, self.finished[job.identity], None)
            elif known and not any(known.path.resolve().is_relative_to(folder) for folder in self._kept):
                self.outcomes[job.identity] = write(self.out, job.file, known.content)

    @property
    def open_jobs(self) -> list[Job]:
        """What has to run; what another one begins with only if its weights are not here."""
        jobs = self.plan.jobs
        there = self.outcomes.keys() | self.finished.keys()
        missing = [job for job in jobs if job.identity in self._asked - there]
        begun_with = {job.after.identity for job in missing if job.after} - self.finished.keys()
        wanted = {job.identity for job in missing} | begun_with
        return [job for job in jobs if job.identity in wanted]

    @property
    def unmeasured(self) -> list[Job]:
        """A job of each row whose speed is asked for and not known."""
        rows = (row for one in self.plan.tables if one.table.measured for row in one.rows if row.jobs)
        found = {row.jobs[0].recipe: row.jobs[0] for row in rows if row.jobs[0].identity in self._asked}
        return [job for recipe, job in found.items() if recipe not in self.speeds]

    def status(self, job: Job) -> str:
        """DONE, LEFT, RESUMED or OPEN."""
        if job.identity in {one.identity for one in self.open_jobs}:
            return RESUMED if job.identity in self.interrupted else OPEN
        return DONE if job.identity in self.outcomes.keys() | self.finished.keys() else LEFT

    def tasks(self) -> list[Task]:
        """What has to run, and then, alone, what has to be measured."""
        waited_for = {job.identity for job in self.open_jobs}
        runs = [
            Task(
                job.title, partial(self.steps, job), self.place(job) / "log.txt", partial(self._finish, job),
                after=job.after.title if job.after and job.after.identity in waited_for else "",
            )
            for job in self.open_jobs
        ]  # fmt: skip
        return runs + [
            Task(f"speed of {job.run}", partial(self._speed_steps, job), self.folder / job.stem / "speed.txt",
                 partial(self._measured, job), alone=True)
            for job in self.unmeasured
        ]  # fmt: skip

    def place(self, job: Job) -> Path:
        """The OUTPUT_DIR of a job; an interrupted one stays where it is."""
        if job.identity in self.interrupted:
            return self.interrupted[job.identity].parent
        return self.folder / job.stem / ("test" if job.seed is None else f"seed-{job.seed}")

    def steps(self, job: Job) -> list[Step]:
        """The commands of a job, as far as they are known now: a run that is still to be made stands as its name."""
        words = [*_files(job), *job.overrides, "OUTPUT_DIR", str(self.place(job))]
        test = [sys.executable, _script("test.py"), *words]
        if job.seed is None:
            return [test]
        if job.after is not None:
            there = self.finished.get(job.after.identity)
            words += [INIT, str(there.run if there else f"<{job.after.title}>")]
        resumed = self.interrupted.get(job.identity)
        train = [sys.executable, _script("train.py"), *words, *(("--resume", str(resumed)) if resumed else ())]
        return [train, [sys.executable, _script("test.py"), *words]]

    def commands(self) -> Iterator[tuple[str, str, list[str]]]:
        """Title, status and commands of every job, and of the measurements."""
        for job in self.plan.jobs:
            yield job.title, self.status(job), list(map(_shown, self.steps(job)))
        for job in self.unmeasured:
            yield f"speed of {job.run}", OPEN, list(map(_shown, self._speed_steps(job)))

    def _finish(self, job: Job, usage: Usage) -> None:
        entry = finished(self.place(job)).get(job.identity)
        if entry is None:
            raise OutcomeError(f"{self.place(job)} holds no results of {job.title}, though it ended well")
        self.finished[job.identity] = entry
        self.outcomes[job.identity] = self._written(job, entry, usage)

    def _written(self, job: Job, entry: Finished, usage: Usage | None) -> Outcome:
        log = log_of(entry.run) if entry.run else []
        content = content_of(
            job, entry.results, log, clip=load_state(entry.run / "checkpoint.pth").clip if entry.run else None,
            seconds=seconds_of(log) or (usage.seconds if usage else 0.0),
            memory=host_peak(usage.peak) if usage else None,
        )  # fmt: skip
        return write(self.out, job.file, content)

    def _speed_steps(self, job: Job) -> list[Step]:
        script = _script("tools/reproduction/speed.py")
        return [[sys.executable, script, *_files(job), *job.overrides, "--out", str(self._speed_file(job))]]

    def _speed_file(self, job: Job) -> Path:
        return self.folder / job.stem / "speed.json"

    def _measured(self, job: Job, usage: Usage) -> None:  # noqa: ARG002
        content = json.loads(self._speed_file(job).read_text(encoding="utf-8"))
        content = {"format": speed.FORMAT, "run": job.run, "recipe": job.recipe, **content}
        write(self.out, f"speed-{job.stem}.json", content)
        self.speeds |= speed.collect([self.out])


def _asked(plan: Plan, only: Sequence[str]) -> set[str]:
    """The identities of jobs of the rows that are made now."""
    rows = [row for one in plan.tables for row in one.rows]
    names = [row.row.run.name for row in rows]
    if unknown := [name for name in only if name not in names]:
        raise TableError(f"--only {unknown[0]} is no run of these tables: {', '.join(dict.fromkeys(names))}")
    return {job.identity for row in rows if not only or row.row.run.name in only for job in row.jobs}


def _files(job: Job) -> list[str]:
    return [word for file in job.files for word in ("--config_file", file)]


def _script(name: str) -> str:
    return os.path.relpath(ROOT / name)


def _shown(step: Sequence[str]) -> str:
    return shlex.join(["python", *step[1:]])
