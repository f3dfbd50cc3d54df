"""Finds the pictures of an index that show something, or answers for all of them.

    python tools/search_images.py index "red house" --top 20
    python tools/search_images.py index --labels "red house, blue star" --out tags.csv
    python tools/search_images.py index --labels labels.txt --top 20 --out best.csv

The first prints pictures, the most probable first. The second writes the probability of every label on every picture,
the third the best pictures of each label, as CSV or as a JSON object in each line (.jsonl). labels.txt has a label in
each line.
`tools/index_images.py` makes the index, docs/search.md says more.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch

from engine import cli
from engine.atomic import atomic_write
from engine.results import aligned
from engine.run import resolve_device
from tagging import Tagger
from tagging.collection import Collection, CollectionError
from tagging.evidence import Asked
from tagging.source import find_source
from tagging.spellings import read_spellings, spelt_alike

SHOWN = 20  # pictures of a label, if --top does not say otherwise


def best_rows(
    collection: Collection, tagger: Tagger, asked: Asked, labels: Sequence[str], top: int
) -> Iterator[dict[str, Any]]:
    """Label, rank, image and probability of the best pictures of each label, by its most probable spelling."""
    best, paths = collection.best(tagger, asked, top), collection.paths
    by_label: dict[str, dict[int, float]] = {label: {} for label in labels}
    for label, places, values in zip(labels, best.places.tolist(), best.probabilities.tolist(), strict=True):
        for place, value in zip(places, values, strict=True):
            by_label[label][place] = max(value, by_label[label].get(place, 0.0))
    for label, pictures in by_label.items():
        ordered = sorted(pictures.items(), key=lambda picture: (-picture[1], picture[0]))[:top]
        for rank, (place, value) in enumerate(ordered, 1):
            yield {"label": label, "rank": rank, "image": paths[place], "probability": round(value, 6)}


def all_rows(
    collection: Collection, tagger: Tagger, asked: Asked, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Image and probabilities, one row for each picture; a label is as probable as its most probable spelling."""
    columns = {label: [k for k, other in enumerate(labels) if other == label] for label in dict.fromkeys(labels)}
    for paths, answer in collection.answers(tagger, asked):
        folded = torch.stack([answer[:, chosen].amax(1) for chosen in columns.values()], 1)
        for path, values in zip(paths, folded.tolist(), strict=True):
            yield {"image": path, "probabilities": [round(value, 6) for value in values]}


def write_jsonl(file: IO[str], rows: Iterable[dict[str, Any]], names: Sequence[str]) -> None:
    """A JSON object in each line; probabilities by label."""
    for row in rows:
        if "probabilities" in row:
            row = row | {"probabilities": dict(zip(names, row["probabilities"], strict=True))}
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_csv(file: IO[str], rows: Iterable[dict[str, Any]], names: Sequence[str]) -> None:
    """A head and a row for each; a column for each label where rows hold the probabilities of all."""
    writer = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(["image", *names] if "probabilities" in row else row)
        writer.writerow([row["image"], *row["probabilities"]] if "probabilities" in row else row.values())


WRITERS: dict[str, Callable[[IO[str], Iterable[dict[str, Any]], Sequence[str]], None]] = {
    ".csv": write_csv, ".jsonl": write_jsonl,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("index", metavar="INDEX", help="what tools/index_images.py made")
    parser.add_argument("label", nargs="?", help="what to look for")
    parser.add_argument("--labels", help='instead: "dog, cat", a .txt with one a line, or a .json')
    parser.add_argument("--top", type=int, help=f"pictures of each label, {SHOWN} if only one is looked for")
    parser.add_argument("--out", metavar="FILE", help="write a .csv or .jsonl instead of a table")
    parser.add_argument("--run", help="the tagger, if it is no longer where it was when the index was made")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = cli.read(parser, argv)
    if (args.label is None) == (args.labels is None):
        parser.error("name one label, or several with --labels")
    return cli.run(lambda: search(args.index, args.label, args.labels, args.top, args.out, args.run, args.device))


def search(
    index: str, label: str | None, labels: str | None, top: int | None, out: str | None, run: str | None, device: str
) -> None:
    """Prints or writes what is asked for."""
    if out is not None and Path(out).suffix not in WRITERS:
        raise CollectionError(f"{out}: what is written has to be a {' or '.join(WRITERS)} file")
    if out is not None and Path(out).exists():
        raise CollectionError(f"{out} is there already: remove it, or name another file")
    if labels is not None and top is None and out is None:
        raise CollectionError("answers for all pictures need --out FILE.csv; or ask for the best ones with --top")
    collection = Collection.open(index)
    tagger = Tagger(find_source(run or collection.run or None).parts, device=resolve_device(device))
    spellings = spelt_alike([label]) if label is not None else read_spellings(labels or "", tagger.template)
    asked = tagger.labels(spellings.names, spellings.texts)
    if labels is not None and top is None:
        rows = all_rows(collection, tagger, asked, spellings.labels)
    else:
        rows = best_rows(collection, tagger, asked, spellings.labels, SHOWN if top is None else top)
    if out is not None:
        with atomic_write(out, "w") as file:
            WRITERS[Path(out).suffix](file, rows, tuple(dict.fromkeys(spellings.labels)))
        return
    cells = [[row["label"], row["image"], f"{row['probability']:.3f}"] for row in rows]
    print(aligned([["label", "image", "probability"], *cells], left=2))


if __name__ == "__main__":
    sys.exit(main())
