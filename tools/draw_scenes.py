"""Draws scenes of an embedded world as PNG files, with a table of their labels: python tools/draw_scenes.py OUT.

    python tools/draw_scenes.py scenes --split emoji:test --count 20

They are pictures to try predict.py on: OUT/test-0000.png, ... and OUT/labels.csv.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from datasets.records import DataError
from datasets.worlds import records_of, scene_of
from engine import cli
from engine.atomic import atomic_write, make_folder


def draw_files(out: Path, split: str, count: int) -> None:
    """Writes the first scenes of a split such as `shapes:test` and their labels.

    Raises:
        DataError: if there is no such split, it has not so many, or a package is missing that they are drawn with.
        WriteError: if the system refuses.
    """
    records = records_of(split)
    if not 0 < count <= len(records.images):
        raise DataError(f"--count {count}: {split} has scenes from 1 to {len(records.images):,}")
    scene_of(records.images[0])  # whether they can be drawn is said before there is a folder
    make_folder(out)
    rows = [("image", "labels")]
    for reference, labels in zip(records.images[:count], records.labels, strict=False):
        name, _, number = reference.partition(":")[2].partition("/")
        rows.append((f"{name}-{int(number):04d}.png", "|".join(labels)))
        with atomic_write(out / rows[-1][0]) as file:
            scene_of(reference).image.save(file, format="png")
    with atomic_write(out / "labels.csv", "w") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--split", default="shapes:test", help="shapes:test, emoji:val, ... (shapes:test)")
    parser.add_argument("--count", type=int, default=12)
    args = cli.read(parser)
    draw_files(args.out, args.split, args.count)
    print(f"{args.count} pictures and labels.csv: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
