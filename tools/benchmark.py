"""How fast something is, and how much memory it takes: median and spread of repeated measurements.

    python tools/benchmark.py tagger [--quick] [--json FILE] [--compare OLD.json]

What is compared is measured in turn, so that a busy machine slows both. OMP_NUM_THREADS sets the threads of a CPU. A
further benchmark is a function that yields measurements and an entry in `WHAT`.
"""

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch
import torch.nn.functional as F
from tqdm import tqdm

from configs import load_config
from datasets import shapes
from engine import cli
from engine.atomic import atomic_write
from engine.results import aligned
from engine.run import environment, resolve_device
from errors import UserError
from model import build_method, load_towers
from tagging import Tagger
from tagging.calibration import fit
from tagging.evidence import NAMES, Asked
from tagging.portable import Parts

ROOT = Path(__file__).resolve().parent.parent
FORMAT = "benchmark"
STATUS = Path("/proc/self/status")
FORGET = Path("/proc/self/clear_refs")  # 5, written to it, resets the peak that STATUS shows (Linux)


class BenchmarkError(UserError, ValueError):
    """A file that holds no earlier measurements."""


class Setting(NamedTuple):
    """How to measure."""

    device: torch.device
    quick: bool

    @property
    def repeats(self) -> int:
        """Of what takes long."""
        return 3 if self.quick else 5


class Measurement(NamedTuple):
    """Repeated values of one thing."""

    name: str
    unit: str
    values: list[float]

    def row(self) -> dict[str, Any]:
        """What is kept of it."""
        return {
            "name": self.name, "unit": self.unit, "median": statistics.median(self.values),
            "min": min(self.values), "max": max(self.values), "values": self.values,
        }  # fmt: skip


class Took(NamedTuple):
    """Seconds of a call: by the clock, and of all threads on the processor."""

    wall: float
    processor: float


class Model(NamedTuple):
    """A model whose weights need not be trained to be timed."""

    name: str
    config: str  # file below `configs`, "" for the defaults
    overrides: tuple[str, ...]
    images: int  # of a batch


MODELS = (
    Model("shapes", "shapes.yml", (), 64),
    Model("ViT-B/16", "", ("MODEL.CLIP_WEIGHTS", "random"), 8),
)  # fmt: skip
MANY = (1_000, 100_000)  # labels that one picture is asked for


def tagger(setting: Setting) -> Iterator[Measurement]:
    """Tagging with 65 encoded labels beside CLIP's bare image tower; one picture and very many labels."""
    for model in MODELS[:1] if setting.quick else MODELS:
        made = untrained(model, setting.device)
        yield from beside_the_tower(model, made, setting)
        for count in MANY:
            yield from many_labels(model, made, count, setting)


def beside_the_tower(model: Model, made: Tagger, setting: Setting) -> Iterator[Measurement]:
    """A batch of pictures, tagged and only seen by the bare tower of open_clip, which is given them prepared."""
    trunk: Any = made.method.trunk
    pixels = torch.stack([made.preparation(shapes.scene("test", k).image) for k in range(model.images)])
    pixels, size = pixels.to(setting.device), (pixels.shape[3], pixels.shape[2])
    pictures = [shapes.scene("test", k).image.resize(size) for k in range(model.images)]
    asked = random_labels(made, len(shapes.LABELS))
    runs = {
        "bare image tower": lambda: trunk.visual(pixels),
        f"tag, {len(asked.names)} labels": lambda: made.tag(pictures, asked), "index": lambda: made.index(pictures),
    }  # fmt: skip
    took = in_turn(list(runs.values()), setting)
    what = f"{model.name}, {model.images} pictures"
    for name, rounds in zip(runs, took, strict=True):
        yield Measurement(f"{what}: {name}", "images/s", [model.images / one.wall for one in rounds])
    pairs = list(zip(took[0], took[1], strict=True))
    yield Measurement(f"{what}: tag, of the bare tower's speed", "%", [100 * a.wall / b.wall for a, b in pairs])
    if setting.device.type == "cpu":  # says the same of a machine that others use too
        shares = [100 * a.processor / b.processor for a, b in pairs]
        yield Measurement(f"{what}: the same by processor time", "%", shares)
    yield from peak_memory(f"{what}: tag, memory", lambda: made.tag(pictures, asked), setting)


def many_labels(model: Model, made: Tagger, count: int, setting: Setting) -> Iterator[Measurement]:
    """One picture, tagged."""
    picture, asked = shapes.scene("test", 0).image, random_labels(made, count)
    what = f"{model.name}, 1 picture, {count:,} labels"
    (took,) = in_turn([lambda: made.tag(picture, asked)], setting)
    yield Measurement(f"{what}: tag", "ms", [1e3 * one.wall for one in took])
    yield from peak_memory(f"{what}: memory", lambda: made.tag(picture, asked), setting)


WHAT: dict[str, Callable[[Setting], Iterator[Measurement]]] = {"tagger": tagger}


def untrained(model: Model, device: torch.device) -> Tagger:
    """A tagger as after a training with the seen labels of `shapes`, but with adapters as they start."""
    path = ROOT / "configs" / model.config if model.config else None
    cfg = load_config(path, model.overrides)
    torch.manual_seed(0)
    method = build_method(cfg, load_towers(cfg), seen=len(shapes.SEEN))
    present = torch.rand(16, len(shapes.SEEN)) < 0.1
    evidence = torch.randn(16, len(shapes.SEEN), len(NAMES)) + present[..., None]
    calibration = fit(evidence, present.float(), torch.rand(present.shape), shapes.SEEN)
    return Tagger(
        Parts(cfg.dump(), method.trained_state(), shapes.SEEN, shapes.UNSEEN, {}, "", calibration.state()),
        device=device, batch=model.images,
    )  # fmt: skip


def random_labels(made: Tagger, count: int) -> Asked:
    """Labels that no text was encoded for."""
    known = made.labels(made.seen[:1]).text
    text = F.normalize(torch.randn(count, known.shape[1]), dim=-1).to(known)
    return Asked(tuple(map(str, range(count))), text, torch.full((count,), -1, device=known.device))


@torch.no_grad()
def in_turn(runs: Sequence[Callable[[], Any]], setting: Setting) -> list[list[Took]]:
    """What each takes, one round after another; a first round is not counted."""
    took: list[list[Took]] = [[] for _ in runs]
    for number in range(setting.repeats + 1):
        for run, rounds in zip(runs, took, strict=True):
            wall, processor = _now(setting), time.process_time()
            run()
            if number:
                rounds.append(Took(_now(setting) - wall, time.process_time() - processor))
    return took


def peak_memory(name: str, run: Callable[[], Any], setting: Setting) -> Iterator[Measurement]:
    """What a call takes at its most above what was held before; nothing where the system does not say."""
    values = []
    for _ in range(3):
        if setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(setting.device)
            before = float(torch.cuda.memory_allocated(setting.device))
            run()
            values.append((torch.cuda.max_memory_allocated(setting.device) - before) / 1e6)
            continue
        try:
            ctypes.CDLL(None).malloc_trim(0)  # else what was freed before is there to be used again, uncounted
            FORGET.write_text("5")
            before = _status("VmRSS")
            run()
            values.append((_status("VmHWM") - before) / 1e6)
        except (OSError, AttributeError, KeyError):
            return
    yield Measurement(name, "MB", values)


def read(path: str, what: str) -> dict[str, Any]:
    """Measurements of before.

    Raises:
        BenchmarkError: if the file holds none, or of something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        measured, _ = content["what"], {row["name"]: float(row["median"]) for row in content["measurements"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{path} holds no measurements: make them with python tools/benchmark.py {what} --json {path}"
        ) from error
    if measured != what:
        raise BenchmarkError(f"{path} measures {measured}, not {what}")
    return content


def table(rows: Sequence[Mapping[str, Any]], old: Mapping[str, Any] | None) -> str:
    """Median and extremes of each measurement, beside those of before."""
    before = {row["name"]: row["median"] for row in old["measurements"]} if old else {}
    cells = [["measurement", "unit", "median", "min", "max", *(["before", "change"] if old else [])]]
    for row in rows:
        line = [row["name"], row["unit"], *(_short(row[k]) for k in ("median", "min", "max"))]
        if old:
            was = before.get(row["name"])
            line += ["-", "-"] if not was else [_short(was), f"{100 * (row['median'] / was - 1):+.1f} %"]
        cells.append(line)
    return aligned(cells, left=2)


def main(argv: list[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    parser.add_argument("what", choices=sorted(WHAT))
    parser.add_argument("--quick", action="store_true", help="fewer models and repeats")
    parser.add_argument("--json", metavar="FILE", help="also write the measurements to this file")
    parser.add_argument("--compare", metavar="OLD.json", help="also show the medians of such a file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    args = cli.read(parser, argv)
    return cli.run(lambda: report(args.what, args.json, args.compare, args.device, quick=args.quick))


def report(what: str, out: str | None, compare: str | None, device: str, *, quick: bool) -> None:
    """Prints the table, and writes it to `out` if it is named."""
    old = read(compare, what) if compare else None
    setting = Setting(resolve_device(device), quick)
    rows = [m.row() for m in tqdm(WHAT[what](setting), what, leave=False, unit="measurement")]
    ran_on = environment()
    if out:
        content = {"format": FORMAT, "what": what, "device": device, "environment": ran_on, "measurements": rows}
        with atomic_write(out, "w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
    print(table(rows, old))
    hardware = ran_on["gpus"] if setting.device.type == "cuda" else ran_on["cpu"]
    print(f"\n{hardware}, {ran_on['threads']} threads, torch {ran_on['torch']}")
    if old and old.get("environment", {}).get("threads") != ran_on["threads"]:
        print("before: another number of threads")


def _now(setting: Setting) -> float:
    if setting.device.type == "cuda":
        torch.cuda.synchronize(setting.device)
    return time.perf_counter()


def _status(key: str) -> float:
    """Bytes of an entry of /proc/self/status; raises KeyError."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return 1024 * float(lines[key].split()[0])


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
