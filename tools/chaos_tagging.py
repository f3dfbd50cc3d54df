"""Kills ranks that tag shards, damages a shard, fills the disk, and compares with what an undisturbed tagging gives.

    python tools/chaos_tagging.py [--shards 20] [--pictures 40] [--ranks 2] [--kills 20] [--seed 1]

In each round a shard is cut short, one rank finds the disk full, and ranks are killed (SIGKILL), ended (SIGTERM) or
interrupted (SIGINT) at random moments and start again, until they find all done but the damaged shard; it is mended and
they finish it. No row may be lost, repeated or different then, no shard may have been tagged by two ranks at once or
again after it was done, and nothing half-written may be left. On a processor, with a small CLIP of random weights.
"""

import io
import random
import shutil
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from tqdm import tqdm

from datasets.shapes import scene
from engine import cli
from errors import UserError
from tools.forked_ranks import Event, Ranks

ROOT = Path(__file__).resolve().parent.parent
ASKED = ["--config_file", str(ROOT / "configs" / "tiny.yml"), "--score", "paper", "--labels", "dog, kite, red circle",
         "--top", "2", "--device", "cpu", "--batch", "8", "--workers", "2"]  # fmt: skip
PATIENCE = 600.0  # seconds after which a tagging hangs


class ChaosError(UserError, RuntimeError):
    """A tagging that ends as nobody expects."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code, 1 if anything was found."""
    parser = cli.parser(__doc__)
    parser.add_argument("--shards", type=int, default=20, metavar="N", help="of the data set (20)")
    parser.add_argument("--pictures", type=int, default=40, metavar="N", help="of a shard (40)")
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="processes that tag (2)")
    parser.add_argument("--kills", type=int, default=20, metavar="N", help="signals in all, in rounds of 5 (20)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of their moments (1)")
    args = cli.read(parser, arguments)
    return cli.run(lambda: campaign(args))


def campaign(args: Namespace) -> int:
    """Disturbs taggings until there were as many signals; prints counts."""
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    drawn, counts = random.Random(args.seed), Counter[str]()
    try:
        expected = {f"{k:03}": write_shard(place / f"{k:03}.tar", k, args.pictures) for k in range(args.shards)}
        begun = time.monotonic()
        undisturbed(place, args.shards)
        seconds = time.monotonic() - begun
        with tqdm(total=args.kills, unit="signal", leave=False) as bar:
            while (before := counts["signals"]) < args.kills:
                counts += disturbed(place, args, drawn, seconds, min(5, args.kills - before))
                counts += compared(place, expected)
                bar.update(counts["signals"] - before)
    finally:
        shutil.rmtree(place)
    done = ("rounds", "signals", "truncated shards", "full disks", "shards", "rows")
    wrong = ("rows lost", "rows repeated", "rows that differ", "shards tagged by two at once",
             "shards tagged again", "files left over", "strange ends")  # fmt: skip
    print(", ".join(f"{counts[name]:,} {name}" for name in done))
    print(", ".join(f"{counts[name]:,} {name}" for name in wrong))
    return 1 if any(counts[name] for name in wrong) else 0


def write_shard(path: Path, number: int, pictures: int) -> list[str]:
    """Writes an archive of scenes with captions, the last of them broken; the names of its pictures."""
    names = [f"{number:03}{k:04}.png" for k in range(pictures)]
    with tarfile.open(path, "w") as archive:
        for k, name in enumerate(names):
            buffer = io.BytesIO()
            scene("test", number * pictures + k).image.save(buffer, "PNG")
            content = buffer.getvalue()[: 100 if k == pictures - 1 else None]
            for member, data in ((name, content), (name.replace("png", "txt"), b"a scene")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return names


def undisturbed(place: Path, shards: int) -> None:
    """Writes what has to come out, by one process."""
    with Ranks(_line(place, "expected"), 1) as ranks:
        (end,) = ranks.wait(PATIENCE)
    if end.status != 0 or len(list((place / "expected").glob("*.parquet"))) != shards:
        raise ChaosError(f"an undisturbed tagging ended with {end.status}: {end.said[-500:]}")


def disturbed(place: Path, args: Namespace, drawn: random.Random, seconds: float, kills: int) -> Counter[str]:
    """Tags under fire, with a damaged shard and a full disk, then mends the shard and finishes."""
    shutil.rmtree(place / "out", ignore_errors=True)
    damaged = place / f"{drawn.randrange(args.shards):03}.tar"
    whole, names = damaged.read_bytes(), {path.stem for path in place.glob("*.tar")}
    damaged.write_bytes(whole[: drawn.randrange(len(whole) - tarfile.RECORDSIZE - 1024)])  # not in zeros at the end
    counts, events = Counter({"rounds": 1, "truncated shards": 1}), list[Event]()
    for code in (2, 0):  # with the damaged shard, and without
        with Ranks(_line(place, "out"), args.ranks, full_disk=drawn.randrange(args.ranks) if code else None) as ranks:
            for _ in range(kills if code else 0):
                counts["signals"] += ranks.shoot(drawn, within=seconds / args.ranks / 2)
            ends = ranks.wait(PATIENCE)
            events += ranks.events
        counts["full disks"] += sum(end.full and end.explained for end in ends)
        counts["strange ends"] += sum(not end.explained and end.status != code for end in ends)
        here = {path.stem for path in (place / "out").glob("*.parquet")}
        counts["strange ends"] += here != names - ({damaged.stem} if code else set())
        damaged.write_bytes(whole)
    return counts + overlaps(events)


def overlaps(events: Sequence[Event]) -> Counter[str]:
    """How many shards were begun while somebody else was at work on them, or after they were done."""
    counts, begun, done = Counter[str](), dict[str, int](), set[str]()
    for _, process, what, shard in sorted(events):
        if what == "begun":
            counts["shards tagged by two at once"] += shard in begun
            counts["shards tagged again"] += shard in done
            begun[shard] = process
        elif what == "killed":
            begun = {name: other for name, other in begun.items() if other != process}
        else:
            begun.pop(shard, None)
            done |= {shard} if what == "done" else set()
    return counts


def compared(place: Path, expected: Mapping[str, Sequence[str]]) -> Counter[str]:
    """What is wrong with the outputs; `expected` are the pictures of each shard."""
    counts = Counter[str]()
    for name, pictures in expected.items():
        rows, right = (_rows(place / out / f"{name}.parquet") for out in ("out", "expected"))
        found = Counter(row["image"] for row in rows)
        counts["shards"] += 1
        counts["rows"] += len(rows)
        counts["rows lost"] += sum(picture not in found for picture in pictures)
        counts["rows repeated"] += sum(times - 1 for times in found.values())
        counts["rows that differ"] += sum(row not in right for row in rows)
    left = {path.name for path in (place / "out").iterdir()} - {f"{name}.parquet" for name in expected}
    counts["files left over"] += len(left)
    return counts


def _rows(path: Path) -> list[dict[str, Any]]:
    """Those of a file; none, which counts as lost, if it is not there or not whole."""
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError):
        return []


def _line(place: Path, out: str) -> list[str]:
    return [str(place / "*.tar"), "--out", str(place / out), *ASKED]


if __name__ == "__main__":
    sys.exit(main())
