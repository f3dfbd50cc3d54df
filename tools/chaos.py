"""Kills trainings at random moments and compares what comes of them with trainings that nobody disturbed.

    python tools/chaos.py --kills 100 [--seed 1] [KEY VALUE ...]

Each training is killed (SIGKILL), ended (SIGTERM) or interrupted (SIGINT) again and again, at moments drawn over its
whole length, evaluations and saving included, and goes on by `--resume auto`. At its end its checkpoint, its results
and its log have to be those of the undisturbed training, to the last bit, and nothing half-written may be left. On a
processor.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

import torch
from tqdm import tqdm

import train
from configs import load_config
from engine import cli
from engine.checkpoint import load_checkpoint
from engine.run import newest_run
from errors import UserError

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["DEVICE", "cpu", "DATASETS.SUBSET", "24", "SOLVER.LOG_PERIOD", "1", "SOLVER.EVAL_PERIOD", "1",
          "DATALOADER.NUM_WORKERS", "0"]  # fmt: skip
SETTINGS = {  # name -> keys beside configs/tiny.yml
    "saves every step": ["SOLVER.CHECKPOINT_PERIOD", "1"],
    "saves every epoch": [],
    "reads in a process": ["DATALOADER.NUM_WORKERS", "1", "SOLVER.CHECKPOINT_PERIOD", "2"],
    "keeps the best": ["SOLVER.SELECT", "best", "SOLVER.CHECKPOINT_PERIOD", "1"],
    "CoOp": ["MODEL.METHOD", "coop", "SOLVER.CHECKPOINT_PERIOD", "1"],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 600.0  # seconds after which a training hangs
MOST = 60  # kills of one training
VARYING = ("time", "images_per_second")  # of a line in the log


class Finding(NamedTuple):
    """Something that is not as it has to be."""

    training: str
    what: str


class Attempt(NamedTuple):
    """A process that trained."""

    status: int  # exit code, or -signal
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code, 1 if anything was found."""
    parser = cli.parser(__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="signals in all, or a few more (100)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of their moments (1)")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), metavar="N", help="the first so many (all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where trainings are kept; otherwise nowhere")
    cli.add_overrides(parser, "SOLVER.MAX_EPOCHS 3")
    args = cli.read(parser, arguments)
    return cli.run(lambda: campaign(args))


def campaign(args: Namespace) -> int:
    """Disturbs trainings of all settings in turn until there were as many signals; prints counts and findings."""
    torch.set_num_threads(1)  # processes are forked, which threads would not survive
    drawn, sent, findings, finished = random.Random(args.seed), Counter[str](), list[Finding](), 0
    names = list(SETTINGS)[: args.settings]
    place = args.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        references = {name: _reference(place / f"undisturbed-{k}", [*SETTINGS[name], *args.opts])
                      for k, name in enumerate(names)}  # fmt: skip
        with tqdm(total=args.kills, desc="signals", unit="signal") as bar:
            while sent.total() < args.kills:
                name = names[finished % len(names)]
                output = place / f"disturbed-{finished}"
                before = sent.total()
                findings += _disturbed(output, [*SETTINGS[name], *args.opts], references[name], drawn, sent, name)
                bar.update(sent.total() - before)
                finished += 1
    finally:
        if args.keep is None:
            shutil.rmtree(place, ignore_errors=True)
    print(f"{sent.total()} signals ({', '.join(f'{count} {kind}' for kind, count in sorted(sent.items()))}) "
          f"in {finished} trainings of {len(names)} settings: {len(findings)} findings")  # fmt: skip
    for finding in findings:
        print(f"{finding.training}: {finding.what}")
    return 1 if findings else 0


def differences(run: Path, reference: Path) -> list[str]:
    """What a finished run has otherwise than the reference, and what should not be there."""
    ours, theirs = (load_checkpoint(folder / train.CHECKPOINT) for folder in (run, reference))
    for content in (ours, theirs):
        content["random"].pop("python")  # nothing draws from it, and every process begins it anew
    found = [f"{key} of the checkpoint differs" for key in sorted(ours.keys() | theirs.keys())
             if key != "config" and not same(ours.get(key), theirs.get(key))]  # fmt: skip
    names = sorted({path.relative_to(folder).as_posix() for folder in (run, reference) for path in folder.rglob("*")})
    found += [f"{name} is in one of both" for name in names if (run / name).exists() != (reference / name).exists()]
    for name in (name for name in names if name.endswith("results.json") and (run / name).exists()):
        one, other = (json.loads((folder / name).read_text())["results"] for folder in (run, reference))
        found += [f"{name} differs"] if one != other else []
    one, other = (_events(folder) for folder in (run, reference))
    found += ["the log differs"] if one != other else []
    times = [json.loads(line)["time"] for line in (run / "log.jsonl").read_text().splitlines()]
    return found + (["time goes backwards in the log"] if times != sorted(times) else [])


def same(left: Any, right: Any) -> bool:
    """Whether two contents of checkpoints are the same, to the last bit."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def _reference(output: Path, keys: Sequence[str]) -> tuple[Path, float]:
    """The run of an undisturbed training, and how long it took."""
    made = _attempt(output, keys, None)
    run = newest_run(output)
    if made.status != 0 or run is None:
        said = (output / "log.txt").read_text()[-500:]
        raise UserError(f"an undisturbed training ended with {made.status}: {said}")
    return run, made.seconds


def _disturbed(
    output: Path,
    keys: Sequence[str],
    reference: tuple[Path, float],
    drawn: random.Random,
    sent: Counter[str],
    name: str,
) -> list[Finding]:
    """Trains under fire until it is through; what is wrong then."""
    kills = 0
    while True:
        # Left alone in the end: on a machine that others use too, no attempt may get anywhere in time.
        shot = (drawn.uniform(0, reference[1]), drawn.choice(SIGNALS)) if kills < MOST else None
        made = _attempt(output, keys, shot)
        if made.status == 0:
            run = newest_run(output)
            assert run is not None
            return [Finding(name, what) for what in differences(run, reference[0])]
        if shot is None or made.status not in (-shot[1], 143, 130):
            return [Finding(name, f"ended with {made.status}: {(output / 'log.txt').read_text()[-500:]}")]
        sent[shot[1].name] += 1
        kills += 1


def _attempt(output: Path, keys: Sequence[str], shot: tuple[float, signal.Signals] | None) -> Attempt:
    """Trains in a forked process, which gets a signal after so many seconds where there is a `shot`."""
    output.mkdir(parents=True, exist_ok=True)
    begun, process = time.monotonic(), os.fork()
    if process == 0:
        _train(output, keys)
    wait, kind = shot or (PATIENCE, signal.SIGKILL)
    while time.monotonic() - begun < PATIENCE:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return Attempt(os.waitstatus_to_exitcode(status), time.monotonic() - begun)
        if time.monotonic() - begun > wait:
            os.kill(process, kind)
            wait = PATIENCE
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return Attempt(1, PATIENCE)


def _train(output: Path, keys: Sequence[str]) -> None:
    """The forked process: trains, with what it says in a file, and ends."""
    code = 1
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cfg = load_config(ROOT / "configs" / "tiny.yml", [*COMMON, *keys, "OUTPUT_DIR", str(output)])
        train.train(cfg, "auto")

    try:
        with open(output / "log.txt", "a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            code = cli.run(run)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not get into the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def _events(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in VARYING} for line in lines]


if __name__ == "__main__":
    sys.exit(main())
