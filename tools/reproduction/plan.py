"""Which trainings and tests some tables need on a benchmark: each configuration once, for all tables and seeds."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from yacs.config import CfgNode

from clip.load import sizes
from configs import ConfigError, load_config
from model import UNTRAINED
from tools.compare import SEED
from tools.reproduction import tables
from tools.reproduction.identity import NO_MATTER, PLACES, differing, digest, recipe, without_place
from tools.reproduction.tables import Level, Row, Spec, Table

__all__ = ["Benchmark", "Job", "Plan", "PlannedRow", "PlannedTable", "plan"]

ROOT = Path(__file__).resolve().parents[2]
SHORT = 6  # digits of a recipe in the names of files


class Benchmark(NamedTuple):
    """What all rows share."""

    files: tuple[str, ...]  # configurations, the last counts
    overrides: tuple[str, ...] = ()  # keys and values in turn

    @property
    def portable(self) -> "Benchmark":
        """The same without what belongs to a machine: files from the repository on, keys that change results."""
        files = [Path(os.path.abspath(file)) for file in self.files]
        inside = tuple(f.relative_to(ROOT).as_posix() if f.is_relative_to(ROOT) else f.name for f in files)
        pairs = zip(self.overrides[::2], self.overrides[1::2], strict=True)
        kept = [pair for pair in pairs if not pair[0].startswith((*NO_MATTER, *PLACES, SEED))]
        return Benchmark(inside, tuple(without_place(word) for pair in kept for word in pair))

    @property
    def title(self) -> str:
        """Such as "shapes", or "shapes, missing/shapes"."""
        return ", ".join([*self.names, *map(" ".join, _pairs(self.overrides))])

    @property
    def names(self) -> list[str]:
        """Of the configurations, below their folder `configs` if that is where they are."""
        return [_name(Path(file).with_suffix("").parts) for file in self.files]


class Job(NamedTuple):
    """A training with its test, or a test of a method that is not trained."""

    run: str
    seed: int | None  # None: nothing is trained, so no seed matters
    files: tuple[str, ...]
    overrides: tuple[str, ...]  # keys and values in turn
    config: dict[str, object]  # `differing`
    identity: str
    recipe: str  # the same for all seeds
    after: "Job | None"  # whose trained weights it begins with
    benchmark: Benchmark
    level: str = ""  # of its table, where that has some

    @property
    def title(self) -> str:
        """Such as "ot, seed 1"."""
        return self.run if self.seed is None else f"{self.run}, seed {self.seed}"

    @property
    def stem(self) -> str:
        """The beginning of its names of files: results of other configurations stand beside it."""
        return f"{self.run}-{self.recipe[:SHORT]}"

    @property
    def file(self) -> str:
        """The name of its result file."""
        return f"{self.stem}.json" if self.seed is None else f"{self.stem}-seed-{self.seed}.json"


class PlannedRow(NamedTuple):
    """A row of a table, and what it is made of."""

    row: Row
    jobs: tuple[Job, ...]  # one for each seed, or one alone
    note: str = ""  # what is left out, and why

    @property
    def name(self) -> str:
        """As in the paper."""
        return self.row.name


class PlannedTable(NamedTuple):
    """A table on a benchmark."""

    table: Table
    rows: tuple[PlannedRow, ...]
    ram: str  # the recipe of RAM as it is configured


class Plan(NamedTuple):
    """Some tables on a benchmark."""

    benchmark: Benchmark
    dataset: str  # DATASETS.NAMES
    tables: tuple[PlannedTable, ...]

    @property
    def jobs(self) -> list[Job]:
        """Each once; what another one begins with stands before it."""
        found: dict[str, Job] = {}
        for planned in self.tables:
            for job in (job for row in planned.rows for job in row.jobs):
                if job.after is not None:
                    found.setdefault(job.after.identity, job.after)
                found.setdefault(job.identity, job)
        return list(found.values())


def plan(names: Sequence[str], benchmark: Benchmark, seeds: Sequence[int]) -> Plan:
    """What some tables need.

    Args:
        names: of tables.
        benchmark: what all rows share.
        seeds: of everything that is trained.

    Raises:
        ConfigError: if a file or a key is not there, or blocks are swept over and the image tower has none.
        clip.load.WeightsError: if the towers are asked for and MODEL.BACKBONE is none.
    """
    base = load_config(benchmark.files, benchmark.overrides)
    planner = _Planner(benchmark, base, seeds)
    return Plan(benchmark, base.DATASETS.NAMES, tuple(planner.table(name) for name in names))


class _Planner:
    def __init__(self, benchmark: Benchmark, base: CfgNode, seeds: Sequence[int]) -> None:
        self.benchmark, self.base, self.seeds = benchmark, base, seeds
        self.ram = recipe(differing(self.load(tables.runs()["ram"])))

    def table(self, name: str) -> PlannedTable:
        made = tables.table(name, self.depths)
        planned = self.at_levels if made.levels else self.row
        return PlannedTable(made, tuple(planned(row, made.levels) for row in made.rows), self.ram)

    def depths(self) -> int:
        towers = sizes(self.base.MODEL.BACKBONE)
        if towers.vision_blocks == 0:
            raise ConfigError(
                f"MODEL.BACKBONE {self.base.MODEL.BACKBONE} is a ResNet, which has no blocks to sweep over"
            )
        return min(towers.vision_blocks, towers.text_blocks)

    def at_levels(self, row: Row, levels: Sequence[Level]) -> PlannedRow:
        """A row at every level, and there with every seed."""
        by_level = {level.name: self.row(Row(row.name, level.at(row.run))).jobs for level in levels}
        jobs = (job._replace(level=name) for name, found in by_level.items() for job in found)
        return PlannedRow(row, tuple(jobs))

    def row(self, row: Row, _: Sequence[Level] = ()) -> PlannedRow:
        note, more = self.limits(row.run) if row.run.needs_regions else ("", ())
        if more is None:
            return PlannedRow(row, (), note)
        cfg = self.load(row.run)
        seeds = [None] if cfg.MODEL.METHOD in UNTRAINED else self.seeds
        return PlannedRow(row, tuple(self.job(row.run, seed, more) for seed in seeds), note)

    def limits(self, spec: Spec) -> tuple[str, tuple[str, ...] | None]:
        """What a run that needs a region for each label cannot do, and its overrides; None: it cannot be run."""
        counts = tables.labels(self.base.DATASETS.NAMES)
        if counts is None:  # of own data: the run says so itself
            return "", ()
        cfg, (seen, unseen) = self.load(spec), counts
        side = sizes(cfg.MODEL.BACKBONE).region
        trained, tested = ((h // side) * (w // side) for h, w in (cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST))
        if seen > trained:
            return f"needs a region for each label; an image has {trained} and there are {seen} seen labels", None
        if unseen > tested:
            return f"needs a region for each label; an image has {tested} and there are {unseen} unseen labels", None
        if seen + unseen > tested:
            why = f"GZSL is left out: it needs a region for each of {seen + unseen} labels, an image has {tested}"
            return why, ("TEST.PROTOCOLS", "ZSL")
        return "", ()

    def files(self, spec: Spec) -> tuple[str, ...]:
        return (*self.benchmark.files, *map(os.path.relpath, spec.files(self.base.DATASETS.NAMES)))

    def load(self, spec: Spec, *more: str) -> CfgNode:
        return load_config(self.files(spec), [*self.benchmark.overrides, *spec.overrides, *more])

    def job(self, spec: Spec, seed: int | None, more: Sequence[str]) -> Job:
        seeded = () if seed is None else (SEED, str(seed))
        config = differing(self.load(spec, *more, *seeded))
        after = self.job(tables.runs()[spec.after], seed, ()) if spec.after else None
        made = recipe(config, after.recipe if after else "")
        name = "ram" if made == self.ram else spec.name
        overrides = (*self.benchmark.overrides, *spec.overrides, *more, *seeded)
        identity = digest(config, after.identity if after else "")
        return Job(name, seed, self.files(spec), overrides, config, identity, made, after, self.benchmark)


def _name(parts: Sequence[str]) -> str:
    folders = [place for place, part in enumerate(parts) if part == "configs"]
    return "/".join(parts[folders[-1] + 1 :]) if folders else parts[-1]


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))
