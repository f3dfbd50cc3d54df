"""How fast a method trains and is tested, and with how much memory: a program that `tools/reproduce.py` starts.

    python tools/reproduction/speed.py --config_file configs/shapes.yml [KEY VALUE ...] --out FILE.json

Batches of SOLVER.IMS_PER_BATCH random images and as many labels as the benchmark has, without reading files: what is
measured is the method alone. Memory is the peak of the GPU, or on a processor that of the whole process.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from yacs.config import CfgNode

from configs import load_config
from engine import cli
from engine.atomic import atomic_write
from engine.run import environment, resolve_device
from errors import UserError
from model import build_method, load_towers
from tools.benchmarking.rounds import test_round, train_round
from tools.reproduction import tables
from tools.reproduction.outcomes import host_peak

__all__ = ["FORMAT", "KINDS", "Speed", "SpeedError", "collect", "machine", "measure"]

FORMAT = "speed of a run"
KINDS = ("train images/s", "test images/s", "train GB", "test GB")
ROUNDS, STEPS = 5, 4  # measurements, and batches of each; one round more goes ahead


class SpeedError(UserError, ValueError):
    """A benchmark that nothing is known of, or a file that holds no measurements."""


class Speed(NamedTuple):
    """A file of measurements."""

    recipe: str
    machine: str
    values: Mapping[str, Sequence[float]]  # by `KINDS`


def collect(folders: Iterable[Path]) -> dict[str, Speed]:
    """All measurements below some folders by recipe; where there are several of one, the first.

    Raises:
        SpeedError: if a file is damaged.
    """
    found: dict[str, Speed] = {}
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("format") == FORMAT:
                values = {kind: tuple(map(float, content["values"][kind])) for kind in KINDS}
                found.setdefault(content["recipe"], Speed(content["recipe"], content["machine"], values))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpeedError(f"{path} holds no measurements: {' '.join(str(error).split())}") from error
    return found


def measure(cfg: CfgNode) -> dict[str, list[float]]:
    """Repeated measurements of `KINDS`, first of the test: the peak of a process does not fall again.

    Raises:
        SpeedError: if the number of labels of DATASETS.NAMES is not known.
    """
    counts = tables.labels(cfg.DATASETS.NAMES)
    if counts is None:
        raise SpeedError(f"{cfg.DATASETS.NAMES} has an unknown number of labels: enter it into paper.yml")
    device, batch = resolve_device(cfg.DEVICE), cfg.SOLVER.IMS_PER_BATCH
    torch.manual_seed(cfg.SOLVER.SEED)
    names = [f"label {number}" for number in range(sum(counts))]
    model = build_method(cfg, load_towers(cfg), seen=counts[0]).to(device)
    tested = _rounds(test_round(model, cfg, names, device, steps=STEPS), batch, device)
    trained = _rounds(train_round(model, cfg, names[: counts[0]], device, steps=STEPS), batch, device)
    return dict(zip(KINDS, (trained[0], tested[0], trained[1], tested[1]), strict=True))


def _rounds(run: Callable[[], None], batch: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Images per second and GB of each round."""
    speeds, peaks = [], []
    for number in range(ROUNDS + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
        begun = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            speeds.append(batch * STEPS / (time.perf_counter() - begun))
            peaks.append(_peak(device))
    return speeds, peaks


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return host_peak(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def machine(facts: Mapping[str, Any], device: str) -> str:
    """What was measured on, of `engine.run.environment`."""
    return facts["gpus"][0] if device == "cuda" else f"{facts['cpu']}, {facts['threads']} threads"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code."""
    parser = cli.parser(__doc__)
    cli.add_configuration(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON")
    cli.add_overrides(parser, "MODEL.MATCHER average")
    args = cli.read(parser, arguments)

    def run() -> None:
        cfg = load_config(args.config_file, args.opts)
        facts = environment()
        content = {"values": measure(cfg), "machine": machine(facts, resolve_device(cfg.DEVICE).type)}
        with atomic_write(args.out, "w") as file:
            file.write(json.dumps({**content, "environment": facts}, indent=1) + "\n")

    return cli.run(run)


if __name__ == "__main__":
    sys.exit(main())
