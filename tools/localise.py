"""How well RAM's maps point at objects, in numbers: python tools/localise.py RUN [RUN ...] [--images N] [--out FILE].

On test scenes of an embedded world, where the object of every pixel is known; all its labels are candidates.
A RUN is one that was trained there, its checkpoint, or an exported tagger; several, as of several seeds, give mean and
standard deviation. `tagging/localisation.py` says what is measured, docs/localisation.md what came out. FILE is JSON.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch
from torch import Tensor
from tqdm import tqdm

from configs import flat, restore_config
from datasets.worlds import WORLDS, World
from engine import cli
from engine.atomic import atomic_write
from engine.provenance import file_identity, provenance
from engine.run import resolve_device
from errors import UserError
from model import RAM
from tagging.build import Built, build
from tagging.localisation import CEILING, METRICS, ROWS, Objects, contrast, located, maps_of, on_grid
from tagging.maps import views
from tagging.portable import CONFIG, WEIGHTS, Parts, checkpoint_of, read_parts

BATCH = 50  # images at once
VISIBLE = 0.25  # of a region's area: what of an object is to be seen at least, or it counts as hidden behind others
GROUPS = ("all", "seen", "unseen")

Numbers = dict[str, dict[str, dict[str, float]]]  # by kind of map, group of labels, metric


class LocaliseError(UserError, ValueError):
    """A run whose maps cannot be measured, or a number of images that there is not."""


def objects(world: World, numbers: Sequence[int], least: float) -> tuple[Objects, Tensor]:
    """The objects of test scenes of which at least so many pixels are seen; and which labels are there, (B, C)."""
    image, label, masks = [], [], []
    present = torch.zeros(len(numbers), len(world.labels), dtype=torch.bool)
    for place, number in enumerate(numbers):
        masks_of_scene = torch.from_numpy(world.scene_masks("test", number))
        for name, mask in zip(world.scene_labels("test", number), masks_of_scene, strict=True):
            present[place, world.labels.index(name)] = True
            if mask.sum() >= least:
                image.append(place)
                label.append(world.labels.index(name))
                masks.append(mask)
    return Objects(torch.tensor(image), torch.tensor(label), torch.stack(masks)), present


def measured(built: Built, world: World, seen: Sequence[str], images: int, device: torch.device) -> tuple[Numbers, int]:
    """The mean of every metric over the objects of the first so many test scenes, and how many objects those are."""
    ram = built.method.to(device)
    if not isinstance(ram, RAM):
        raise LocaliseError(f"{ram.title} has no regions to measure: name a run of RAM")
    values: dict[str, list[Tensor]] = {row: [] for row in (CEILING, *ROWS)}  # (P, 3) of each batch
    peaks: dict[str, list[Tensor]] = {row: [] for row in ROWS}  # (B, C)
    labels, there = [], []
    with torch.no_grad():
        encoded = ram.encode_labels(world.labels)
    for start in tqdm(range(0, images, BATCH), "localise", unit="batch", leave=False):
        numbers = range(start, min(start + BATCH, images))
        pixels = torch.stack([built.preparation(f"{world.name}:test/{number}") for number in numbers])
        image_views = views(ram, pixels.to(device), encoded)
        shown, present = objects(world, numbers, VISIBLE * world.side**2 / (image_views.grid[0] * image_views.grid[1]))
        labels.append(shown.label)
        there.append(present)
        ideal = on_grid(shown.masks, image_views.grid)
        values[CEILING].append(torch.stack(located(ideal, shown.masks, image_views.grid), 1))
        for row, maps in maps_of(image_views).items():
            own = maps.cpu()[shown.image, :, shown.label]  # (P, N)
            stretch = row.startswith("cosines")
            values[row].append(torch.stack(located(own, shown.masks, image_views.grid, stretch=stretch), 1))
            peaks[row].append(maps.amax(1).cpu())
    known = torch.tensor([name in set(seen) for name in world.labels])
    label, present = torch.cat(labels), torch.cat(there)
    means = {row: means_by_group(torch.cat(parts), known[label]) for row, parts in values.items()}
    for row, parts in peaks.items():
        for group, chosen in chosen_by_group(known).items():
            means[row][group]["contrast"] = contrast(torch.cat(parts)[:, chosen], present[:, chosen])
    return means, len(label)


def means_by_group(values: Tensor, known: Tensor) -> dict[str, dict[str, float]]:
    """Means of values (P, 3) over the objects with seen labels, with unseen ones and with any."""
    return {
        group: dict(zip(METRICS, values[chosen].mean(0).tolist(), strict=True))
        for group, chosen in chosen_by_group(known).items()
    }


def chosen_by_group(known: Tensor) -> dict[str, Tensor]:
    """What belongs to each group, as bools."""
    return dict(zip(GROUPS, (torch.ones_like(known), known, ~known), strict=True))


def across(runs: Sequence[Numbers], of: Callable[[list[float]], float]) -> Numbers:
    """A statistic over runs of every number."""
    return {
        row: {
            group: {metric: of([run[row][group][metric] for run in runs]) for metric in metrics}
            for group, metrics in groups.items()
        }
        for row, groups in runs[0].items()
    }


def table(mean: Numbers, deviation: Numbers | None, group: str) -> str:
    """The numbers of a group in percent, as a table of Markdown."""
    columns = (*METRICS, "contrast")
    lines = [f"| {group} labels | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for row, groups in mean.items():
        cells = [
            "-" if column not in groups[group]
            else f"{100 * groups[group][column]:.1f}"
            + (f" ± {100 * deviation[row][group][column]:.1f}" if deviation is not None else "")
            for column in columns
        ]  # fmt: skip
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def origin(place: Path, parts: Parts, world: World, images: int, shown: int) -> dict[str, Any]:
    """Where the numbers of a run come from."""
    config = flat(restore_config(parts.config))
    return provenance(
        config={key: value for key, value in config.items() if key != "OUTPUT_DIR"},  # a place on one machine
        checkpoint=file_identity(place / WEIGHTS if (place / CONFIG).is_file() else checkpoint_of(place)),
        lists={f"{world.name}:test": {"images": images, "labels": len(world.labels), "objects": shown}},
        seen=parts.seen, unseen=[name for name in world.labels if name not in parts.seen],
    )  # fmt: skip


def checked(places: Sequence[Path]) -> tuple[list[Parts], World]:
    """The parts of runs that were trained on one world, and the world."""
    every, worlds = [], []
    for place in places:
        every.append(read_parts(place))
        seen = set(every[-1].seen)
        worlds += [world for world in WORLDS.values() if seen and seen < set(world.labels)]
        if len(worlds) < len(every):
            known, files = (" or ".join(f"{name}{end}" for name in WORLDS) for end in ("", ".yml"))
            raise LocaliseError(f"{place} was not trained on {known}, where objects are known: name a run of {files}")
        if worlds[-1] != worlds[0]:
            raise LocaliseError(f"{place} is a run of {worlds[-1].name}, {places[0]} one of {worlds[0].name}")
    return every, worlds[0]


def main() -> None:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--images", type=int, help="the first so many test scenes; all if not given")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON to write the numbers to")
    parser.add_argument("--device", default="auto")
    args = cli.read(parser)
    device = resolve_device(args.device)
    every, world = checked(args.runs)
    there = world.splits["test"].size
    images = there if args.images is None else args.images
    if not 1 <= images <= there:
        raise LocaliseError(f"--images is {images}; there are 1 to {there} test scenes")
    results, about = [], []
    for place, parts in zip(args.runs, every, strict=True):
        numbers, shown = measured(build(parts), world, parts.seen, images, device)
        results.append(numbers)
        about.append(origin(place, parts, world, images, shown))
    mean = across(results, statistics.mean)
    deviation = across(results, statistics.stdev) if len(results) > 1 else None
    if args.out is not None:
        with atomic_write(args.out, "w") as file:
            content = {"about": about, "mean": mean, "standard deviation": deviation, "runs": results}
            file.write(json.dumps(content, indent=2) + "\n")
    print("\n\n".join(table(mean, deviation, group) for group in GROUPS))


if __name__ == "__main__":
    sys.exit(cli.run(main))
