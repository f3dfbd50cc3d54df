"""Tags pictures by the million, shard by shard: WebDataset archives, Parquet lists or folders to a Parquet file each.

    python tools/tag_dataset.py "data/{000..019}.tar" --out tags --labels names.txt [--run RUN]
    torchrun --nproc_per_node 4 tools/tag_dataset.py "data/{000..019}.tar" --out tags --labels names.txt
    python tools/tag_dataset.py "data/{000..019}.tar" --out tags --labels names.txt --engine ray

Any number of processes may work at the same shards, on one machine or on several that share the disk. Killed anywhere,
the same command goes on; what is done is not done again. Exit code 2 if shards are damaged; they are named, and all
others are done. docs/tag_dataset.md shows the rest.
"""

import importlib.util
import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from tqdm import tqdm

from engine import cli
from engine.run import resolve_device
from engine.signals import Terminated, requests
from errors import UserError
from predict import about, add_question, asked
from tagging.predictor import THREADS
from tagging.shards import Job, Outputs, Settled, Shard, ShardError, Tagging, Tally, find_shards, work_off
from tagging.shards.on_ray import settled_on_ray
from tagging.source import find_source

SCALE = "pip install -r requirements-scale.txt"


class ShardsError(UserError, ValueError):
    """Shards that could not be tagged, or something that cannot be asked for."""


def parser() -> ArgumentParser:
    """The command line."""
    made = cli.parser(__doc__)
    made.add_argument("shards", nargs="+", metavar="SHARDS",
                      help='.tar and .parquet files, folders of pictures, "data/*.tar", "{000..019}.tar"')  # fmt: skip
    made.add_argument("--out", required=True, metavar="DIR", type=Path, help="folder of the outputs, a file each shard")
    made.add_argument("--pictures", type=int, default=10_000, metavar="N",
                      help="of a shard that is cut from a folder or a Parquet list (10,000)")  # fmt: skip
    made.add_argument("--column", help="of Parquet lists: paths or bytes; default: jpg, png, image, path, url, ...")
    made.add_argument(
        "--images", metavar="DIR", type=Path, help="folder that their paths are relative to; default: theirs"
    )
    made.add_argument("--workers", type=int, default=THREADS, metavar="N", help="threads that read pictures")
    made.add_argument("--engine", choices=("ranks", "ray"), default="ranks", help="who tags: this process, or Ray's")
    made.add_argument("--actors", type=int, metavar="N", help="with --engine ray: processes; default: one for each GPU")
    add_question(made)
    return made


def require(args: Namespace) -> None:
    """Refuses what is asked for wrongly, and names what has to be installed.

    Raises:
        ShardsError: in one line.
        DeviceError: if there is no such device here.
    """
    for name in ("pictures", "workers", "actors"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ShardsError(f"--{name} is {value}: it has to be 1 or more")
    if importlib.util.find_spec("pyarrow") is None:
        raise ShardsError(f"outputs are Parquet files, which need pyarrow: {SCALE}")
    if args.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ShardsError(f"--engine ray needs Ray: {SCALE}")
    if args.engine == "ranks":
        resolve_device(args.device)  # of Ray, the machines of the cluster know


def job_of(args: Namespace) -> Job:
    """What the command line asks for."""
    source = find_source(args.run, args.config_file)
    spellings = asked(args, source)
    weights = None if args.clip_weights is None else str(Path(args.clip_weights).absolute())
    return Job(
        args.out.absolute(), source, spellings, args.score, args.threshold, args.top, weights, args.batch,
        args.workers, about(args, source, spellings),
    )  # fmt: skip


def on_ranks(shards: Sequence[Shard], tag: Tagging) -> Iterator[Settled]:
    """Shards as they are settled, by this process or by others like it."""
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    first = rank * len(shards) // world
    return work_off([*shards[first:], *shards[:first]], tag.outputs, tag)


def settle_all(
    shards: Sequence[Shard], job: Job, outputs: Outputs, args: Namespace, *, speaks: bool
) -> tuple[dict[str, Tally], dict[str, ShardError]]:
    """What each shard's output holds, or why it could not be tagged; by name."""
    done = {shard.name: tally for shard in shards if (tally := outputs.finished(shard)) is not None}
    left = [shard for shard in shards if shard.name not in done]
    errors: dict[str, ShardError] = {}
    with tqdm(unit="picture", leave=False, disable=not speaks) as bar:
        if args.engine == "ray" and left:
            settled = settled_on_ray(left, job, outputs, device=args.device, workers=args.actors)
        else:
            settled = on_ranks(left, Tagging(job, outputs, resolve_device(args.device), bar.update))
        bar.set_description(f"{len(done):,} of {len(shards):,} shards")
        for shard, tally, error in settled:
            if error is not None:
                errors[shard.name] = error
            elif tally is not None:
                done[shard.name] = tally
                bar.update(tally.pictures if args.engine == "ray" else 0)
            bar.set_description(f"{len(done) + len(errors):,} of {len(shards):,} shards")
    for shard in left:  # somebody else may have been able to read it
        if shard.name in errors and (tally := outputs.finished(shard)) is not None:
            done[shard.name] = tally
            del errors[shard.name]
    return done, errors


def tag_dataset(args: Namespace) -> None:
    """Tags what is not done; the first rank says what came of it.

    Raises:
        ShardsError: at the end, naming the shards that could not be tagged.
    """
    require(args)
    begun, speaks = time.perf_counter(), os.environ.get("RANK", "0") == "0"
    images = None if args.images is None else args.images.absolute()
    places = [os.path.abspath(place) for place in args.shards]
    shards = find_shards(places, size=args.pictures, column=args.column, images=images)
    job = job_of(args)
    outputs = job.outputs()
    outputs.sweep()
    done, errors = settle_all(shards, job, outputs, args, speaks=speaks)
    outputs.sweep()
    outputs.claims.close(remove=not errors)
    if speaks:
        tell(args.out, done.values(), errors.values(), time.perf_counter() - begun)
    if errors:
        names = ", ".join(list(errors)[:5]) + (", ..." if len(errors) > 5 else "")
        raise ShardsError(f"{len(errors):,} of {len(shards):,} shards could not be tagged: {names}; all others are "
                          "done: mend them and give the same command again")  # fmt: skip


def tell(out: Path, done: Collection[Tally], errors: Iterable[ShardError], seconds: float) -> None:
    """Says what there is now, and names what is damaged."""
    pictures, unreadable = sum(one.pictures for one in done), sum(one.unreadable for one in done)
    print(f"{out}: {len(done):,} shards, {pictures:,} pictures; {seconds:,.1f} s")
    if unreadable:
        print(f"{unreadable:,} pictures could not be read: the column error says why", file=sys.stderr)
    for error in errors:
        print(f"left out: {error}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    args = cli.read(parser(), argv)

    def run() -> int:
        try:
            with requests():
                tag_dataset(args)
        except Terminated:
            print("ended by SIGTERM; the same command goes on", file=sys.stderr)
            return 143
        return 0

    return cli.run(run)


if __name__ == "__main__":
    sys.exit(main())
