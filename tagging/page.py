"""Tagged pictures as one HTML page that needs nothing else: no other file, no network.

Names of files and labels are text of the markup only, escaped, and the page allows no script but its own, which it
knows by its hash (Content-Security-Policy). The page is `page.html`, what it does is `page.js`.

K labels of a picture, regions on a grid of h x w.
"""

import base64
import hashlib
import html
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from engine.atomic import atomic_write
from files import written_out

__all__ = ["PageEntry", "write_page"]

LARGEST = 320  # pixels of the longer side of a picture in the page
QUALITY = 85  # of JPEG
HERE = Path(__file__).parent


class PageEntry(NamedTuple):
    """A picture with its labels."""

    picture: str  # its name, as it is shown
    image: Image.Image  # of any size
    labels: tuple[str, ...]  # K, in the order in which they are shown
    probabilities: tuple[float, ...]  # K, in [0, 1]
    maps: Tensor | None  # (K, h, w), in [0, 1] on one scale for all labels and pictures


def write_page(path: str | os.PathLike[str], entries: Iterable[PageEntry], *, title: str) -> int:
    """Writes the page, and gives the number of pictures in it.

    Entries are taken one at a time and none is kept, so that a generator of any length will do. If it raises, `path` is
    as it was.

    Args:
        path: HTML file to write, in a folder that exists.
        entries: pictures in the order of the page.
        title: of the page.

    Raises:
        ValueError: if an entry has not as many probabilities, or maps, as labels.
        WriteError: if the system refuses.
    """
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    head, tail = (HERE / "page.html").read_text(encoding="utf-8").split("[[cards]]\n")
    head = head.replace("[[digest]]", digest).replace("[[title]]", _text(title))
    pictures = 0
    with atomic_write(path, "w") as file:
        file.write(head)
        for entry in entries:
            file.write(_card(entry))
            pictures += 1
        file.write(tail.replace("[[script]]", script))
    return pictures


def _card(entry: PageEntry) -> str:
    """The markup of a picture and its labels."""
    maps = entry.maps
    sizes = {len(entry.labels), len(entry.probabilities), len(entry.labels if maps is None else maps)}
    if len(sizes) > 1:
        raise ValueError(
            f"{entry.picture}: {len(entry.labels)} labels, {len(entry.probabilities)} probabilities"
            + ("" if maps is None else f" and {len(maps)} maps")
        )
    small = _thumbnail(entry.image)
    name = _text(entry.picture)
    charts = [None] * len(entry.labels) if maps is None else _charts(maps)
    labels = "".join(map(_label, entry.labels, entry.probabilities, charts)) or '<li class="none">no label</li>'
    return (
        f'<article data-columns="{0 if maps is None else maps.shape[-1]}">'
        f'<figure style="--ratio:{small.width / small.height:.4f}">'
        f'<img src="data:image/jpeg;base64,{_jpeg(small)}" width="{small.width}" height="{small.height}" '
        f'alt="{name}" loading="lazy" decoding="async"><canvas aria-hidden="true"></canvas></figure>\n'
        f'<div class="name" dir="auto" title="{name}">{name}</div>\n'
        f"<ul>{labels}</ul></article>\n"
    )


def _label(label: str, probability: float, chart: str | None) -> str:
    """The markup of a label: a button with a bar as long as the probability."""
    where = "disabled" if chart is None else f'data-map="{chart}" aria-pressed="false"'
    return (
        f'<li><button type="button" class="label" data-p="{float(probability):.6g}" {where} '
        f'style="--p:{100 * float(probability):.1f}%"><span dir="auto">{_text(label)}</span> '
        f"<b>{float(probability):.2f}</b></button></li>\n"
    )


def _charts(maps: Tensor) -> list[str]:
    """Each map as bytes in base64, row by row, 255 for 1."""
    levels = (255 * maps.detach().float().clamp(0, 1)).round().byte().cpu().numpy()
    return [base64.b64encode(level.tobytes()).decode() for level in levels]


def _thumbnail(image: Image.Image) -> Image.Image:
    """The picture in RGB, reduced to the largest size where it is larger."""
    small = image.convert("RGB") if image.mode != "RGB" else image.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return small


def _jpeg(image: Image.Image) -> str:
    """The file in base64."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _text(name: str) -> str:
    """A name for markup and attributes; bytes of a file name that are no UTF-8 are spelt out."""
    return html.escape(written_out(name))
