"""Draws the first scenes of a split of an embedded world into one picture, with their labels.

python tools/show_scenes.py docs/shapes.png
python tools/show_scenes.py docs/figures/emoji.png --split emoji:test
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from PIL import Image, ImageDraw

from datasets.worlds import records_of, scene_of, world_of
from engine import cli

SIDE, LINE, MARGIN = 192, 14, 10  # pixels: a scene, a line of text, the space between scenes


def picture(split: str, columns: int, rows: int) -> Image.Image:
    """A grid of scenes; labels unseen in training are marked with a star."""
    world, references = world_of(split), records_of(split).images[: columns * rows]
    width, height = SIDE + MARGIN, SIDE + world.most * LINE + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for index, reference in enumerate(references):
        image, labels = scene_of(reference)
        x, y = MARGIN + index % columns * width, MARGIN + index // columns * height
        sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
        for line, label in enumerate(labels):
            text = f"{label} *" if label in world.unseen else label
            pen.text((x, y + SIDE + line * LINE), text, fill="black")
    return sheet


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--split", default="shapes:test", help="shapes:test, emoji:val, ... (shapes:test)")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=2)
    args = cli.read(parser)
    picture(args.split, args.columns, args.rows).save(args.out)


if __name__ == "__main__":
    sys.exit(cli.run(main))
