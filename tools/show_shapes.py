"""Draws the first scenes of a split of the embedded benchmark into one picture, with their labels.

python tools/show_shapes.py docs/shapes.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from PIL import Image, ImageDraw

from datasets.shapes import OBJECTS, SPLITS, UNSEEN, scene
from engine import cli

SIDE, LINE, MARGIN = 192, 14, 10  # pixels: a scene, a line of text, the space between scenes


def picture(split: str, columns: int, rows: int) -> Image.Image:
    """A grid of scenes; labels unseen in training are marked with a star."""
    width, height = SIDE + MARGIN, SIDE + OBJECTS[1] * LINE + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for index in range(columns * rows):
        image, labels = scene(split, index)
        x, y = MARGIN + index % columns * width, MARGIN + index // columns * height
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        for line, label in enumerate(labels):
            pen.text((x, y + SIDE + line * LINE), f"{label} *" if label in UNSEEN else label, fill="black")
    return sheet


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--split", choices=[name for name in SPLITS if name != "pretrain"], default="test")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2)
    args = cli.read(parser)
    picture(args.split, args.columns, args.rows).save(args.out)


if __name__ == "__main__":
    sys.exit(cli.run(main))
