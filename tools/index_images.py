"""Looks at pictures once, so that any label can be asked of them later: what a tagger makes of each goes into an index.

    python tools/index_images.py photographs more/a.jpg --out index [--run RUN]

Pictures are files, folders with all below them, or patterns in quotes; shapes:test and shapes:train[:300] are scenes
of an embedded world. Pictures that the index holds are left out, so the same command goes on where it was stopped and
adds new ones. Exit code 1 if pictures cannot be read; they are named. `tools/search_images.py` asks; docs/search.md.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from datasets.worlds import is_reference, records_of
from engine import cli
from engine.run import resolve_device
from tagging import Tagger
from tagging.collection import MANIFEST, Collection, extend
from tagging.inputs import find_pictures
from tagging.portable import TaggerError
from tagging.source import find_source


def scenes(argument: str) -> list[str]:
    """References to the scenes of a split of an embedded world or of a part of one; any other argument as it is.

    Raises:
        DataError: if there is no such split.
    """
    whole = is_reference(argument) and "/" not in argument
    return list(records_of(argument).images) if whole else [argument]


def main(argv: list[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    what = "files, folders, patterns in quotes, - for a list on stdin, shapes:test/17"
    parser.add_argument("pictures", nargs="+", metavar="PICTURES", help=what)
    parser.add_argument("--out", required=True, metavar="INDEX", help="folder of the index, new or to be extended")
    parser.add_argument("--run", help="run, folder of runs, checkpoint or exported folder; default: newest below runs/")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = cli.read(parser, argv)
    return cli.run(lambda: index(args.pictures, args.out, args.run, args.device))


def index(places: Sequence[str], out: str, run: str | None, device: str) -> int:
    """Extends the index `out`; says what came of it."""
    pictures = [one.picture for one in find_pictures([one for place in places for one in scenes(place)], sys.stdin)]
    source = find_source(run)
    if not source.trained:
        raise TaggerError("there is no run below runs/ to index with: name one with --run")
    tagger = Tagger(source.parts, device=resolve_device(device))
    start = time.perf_counter()
    broken = extend(out, tagger, pictures, run=str(Path(source.place).resolve()))
    took = time.perf_counter() - start
    for error in broken.values():
        print(f"left out: {error}", file=sys.stderr)
    if (Path(out) / MANIFEST).is_file():
        collection = Collection.open(out)
        count, size = len(collection.paths), collection.size
        print(f"{out}: {count:,} pictures, {size / 1e6:,.1f} MB, {size / count / 1e3:,.1f} KB each; {took:,.1f} s")
    if broken:
        print(f"{len(broken):,} of {len(pictures):,} pictures cannot be read", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
