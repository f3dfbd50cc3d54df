"""Figures of what a trained RAM sees where: python tools/visualize.py PICTURES... --run RUN --out DIR.

    python tools/visualize.py shapes:test/9 shapes:test/12 --run runs/shapes --out figures
    python tools/visualize.py street.jpg --run RUN --labels "dog, bus, kite" --out street.png

A folder receives two figures of every picture: NUMBER-NAME-regions.png, the features of regions before and after the
ladder (the paper's Figures 8 and 12), and NUMBER-NAME-matching.png, re-weighting beside KCOT for all labels (Figures 6
and 14); and found.png of all pictures: the labels that are found, with their maps (Figure 13). A file receives the last
alone. Of scenes of the embedded worlds it is known what they show: green labels are there, red ones are not; a star
marks labels that training never saw.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import matplotlib
import torch
from matplotlib.figure import Figure
from PIL import Image

from datasets.records import DataError
from datasets.worlds import is_reference, scene_of, world_of
from engine import cli
from engine.atomic import atomic_write, make_folder
from engine.run import resolve_device
from errors import UserError
from model import RAM
from tagging import Tagger, Tags
from tagging.figures import GREEN, RED, Shown, found_labels, recovery, side_by_side
from tagging.maps import Views, views

COLUMNS = 7  # labels that are drawn of a picture at most
MOST = 50  # pictures
LARGEST = 512  # pixels of the longer side of a picture that is drawn
TILES = 70  # labels of a matching at most
DPI = 90


class VisualizeError(UserError, ValueError):
    """Nothing to draw."""


def truth(picture: str) -> tuple[str, ...] | None:
    """The labels that are there, of a scene of an embedded world; None for other pictures."""
    if is_reference(picture):
        with suppress(DataError):  # whoever opens it says that there is no such scene
            return scene_of(picture).labels
    return None


def shown(tagger: Tagger, picture: str, image: Image.Image, tags: Tags) -> Shown:
    """What `found_labels` draws."""
    assert tags.maps is not None  # as they were asked for
    names, known = [], truth(picture)
    colours = {}
    for label, probability in zip(tags.labels, tags.probabilities, strict=True):
        star = "" if label in tagger.seen else " *"
        names.append(f"{label}{star}  {probability:.2f}")
        if known is not None:
            colours[names[-1]] = GREEN if label in known else RED
    return Shown(image, Path(picture).name if known is None else picture, names, tags.maps, colours)


def sheets(
    image: Image.Image,
    labels: Sequence[str],
    candidates: Sequence[str],
    image_views: Views,
    known: Sequence[str] | None,
) -> dict[str, Figure]:
    """The figures of a picture's regions, with the given labels, and of their matching, by name."""
    there, framed = (labels, "labels drawn") if known is None else (known, "labels there")

    def charts(values: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        return values[0].T[[candidates.index(name) for name in names]].unflatten(1, image_views.grid).cpu()

    ordered = [*there, *(label for label in candidates if label not in there)][:TILES]
    affinity = {name: charts(values, labels) for name, values in image_views.affinity.items()}
    plans = {name: charts(image_views.plans[name], ordered) for name in ("re-weighting", "KCOT")}
    attention, mu = (
        values[0].unflatten(0, image_views.grid).cpu() for values in (image_views.attention, image_views.mu)
    )
    return {
        "regions": recovery(image, attention, mu, affinity, labels),
        "matching": side_by_side(image, plans, ordered, min(len(there), TILES), framed=framed),
    }


def save(figure: Figure, path: Path) -> None:
    """Writes the figure as PNG."""
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI, pil_kwargs={"optimize": True})
    print(path)


def candidates_of(tagger: Tagger, pictures: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The labels that compete: of the training, of the world for its scenes, and those that are wanted."""
    worlds = {world_of(picture).name: world_of(picture) for picture in pictures if truth(picture) is not None}
    scenes = [label for world in worlds.values() for label in world.labels]
    return tuple(dict.fromkeys((*tagger.seen, *scenes, *wanted)))


def tagged(tagger: Tagger, picture: str, candidates: Sequence[str], wanted: Sequence[str]) -> Tags:
    """The labels to draw of a picture: the wanted ones, otherwise those that are found, or else the nearest miss."""
    if wanted:
        tags = tagger.tag(picture, wanted, top_k=COLUMNS, maps=True)
    else:
        tags = tagger.tag(picture, candidates, threshold="best", top_k=COLUMNS, maps=True)
    if not tags[0]:
        tags = tagger.tag(picture, candidates, top_k=1, maps=True)
    assert isinstance(tags, Tags)  # of one picture
    return tags


def draw(tagger: Tagger, ram: RAM, pictures: Sequence[str], wanted: Sequence[str], folder: Path | None) -> Figure:
    """Writes the two figures of each picture if there is a folder for them; gives the one of all pictures."""
    candidates, rows = candidates_of(tagger, pictures, wanted), []
    with torch.no_grad():
        encoded = ram.encode_labels(candidates)
    for number, picture in enumerate(pictures, 1):
        image, tags = tagger.preparation.rgb(picture), tagged(tagger, picture, candidates, wanted)
        image.thumbnail((LARGEST, LARGEST))  # all of them are held until the end
        rows.append(shown(tagger, picture, image, tags))
        if folder is None:
            continue
        image_views = views(ram, tagger.preparation(picture)[None].to(encoded.features.device), encoded)
        for name, figure in sheets(image, tags.labels, candidates, image_views, truth(picture)).items():
            save(figure, folder / f"{number}-{_stem(picture)}-{name}.png")
    return found_labels(rows, columns=COLUMNS)


def _stem(picture: str) -> str:
    return Path(picture).stem if truth(picture) is None else picture.replace(":", "-").replace("/", "-")


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("pictures", nargs="+", help="files, or scenes such as shapes:test/9")
    parser.add_argument("--run", required=True, help="a run, a folder of runs (the newest), a checkpoint or a tagger")
    parser.add_argument(
        "--labels", default="", help='such as "dog, bus": draw these; default: the labels that are found'
    )
    parser.add_argument("--out", required=True, type=Path, help="a folder, or a file such as found.png")
    parser.add_argument("--device", default="auto")
    args = cli.read(parser)
    if len(args.pictures) > MOST:
        raise VisualizeError(f"{len(args.pictures)} pictures are too many for one figure: {MOST} at most")
    if args.out.suffix not in ("", ".png"):
        raise VisualizeError(f"--out is {args.out}: a folder, or a file that ends in .png")
    matplotlib.use("Agg")
    tagger = Tagger.load(args.run, device=resolve_device(args.device))
    if not isinstance(tagger.method, RAM):
        raise VisualizeError(f"{tagger.method.title} has no regions to draw: name a run of RAM")
    wanted = tuple(dict.fromkeys(filter(None, map(str.strip, args.labels.split(",")))))
    folder = None if args.out.suffix else args.out
    if folder is not None:
        make_folder(folder)
    save(
        draw(tagger, tagger.method, args.pictures, wanted, folder), args.out if folder is None else folder / "found.png"
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
