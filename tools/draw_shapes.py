"""Draws scenes of the embedded world as PNG files, with a table of their labels: python tools/draw_shapes.py OUT.

They are pictures to try predict.py on: OUT/test-0000.png, ... and OUT/labels.csv.
"""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from datasets.records import DataError
from datasets.shapes import SPLITS, scene
from engine import cli
from engine.atomic import atomic_write, make_folder


def draw_files(out: Path, split: str, count: int) -> None:
    """Writes the first scenes of a split and their labels.

    Raises:
        DataError: if the split has not so many.
        WriteError: if the system refuses.
    """
    if not 0 < count <= SPLITS[split].size:
        raise DataError(f"--count {count}: the split {split} of shapes has scenes from 1 to {SPLITS[split].size:,}")
    make_folder(out)
    rows = [("image", "labels")]
    for index in range(count):
        image, labels = scene(split, index)
        rows.append((f"{split}-{index:04d}.png", "|".join(labels)))
        with atomic_write(out / rows[-1][0]) as file:
            image.save(file, format="png")
    with atomic_write(out / "labels.csv", "w") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--split", choices=[name for name in SPLITS if name != "pretrain"], default="test")
    args = cli.read(parser)
    draw_files(args.out, args.split, args.count)
    print(f"{args.count} pictures and labels.csv: {args.out}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
