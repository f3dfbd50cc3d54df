"""Fixtures of the reproduction's tests: made-up result files, and programs that stand for train.py and test.py."""

import json
import random
import signal
from types import SimpleNamespace

import pytest

from tools.reproduction import outcomes, runner, tables, work
from tools.reproduction.plan import Benchmark, plan

HERE = ("5", "6", "9", "10", "11", "12", "fig11")  # tables that need RAM's own keys alone
LISTS = {
    "ZSL": {"images": 3, "labels": 17, "fingerprint": "ab"},
    "GZSL": {"images": 4, "labels": 65, "fingerprint": "c"},
}
ENVIRONMENT = {
    "cpu": "a processor",
    "cpu_count": 2,
    "gpus": [],
    "torch": "2",
    "commit": "0123456789abcdef",
    "threads": 1,
}
# Writes what a training and a test leave behind. HANG names a MODEL.MATCHER whose training stops behind its checkpoint.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from configs import flat, load_config
kind, words, files, resume, opts = sys.argv[1], sys.argv[2:], [], "", []
while words:
    word = words.pop(0)
    if word == "--config_file":
        files.append(words.pop(0))
    elif word == "--resume":
        resume = words.pop(0)
    else:
        opts.append(word)
cfg = load_config(files, opts)
if cfg.MODEL.MATCHER == os.environ.get("FAIL"):
    print("error: nothing works", file=sys.stderr)
    sys.exit(2)
run = Path(resume or Path(cfg.OUTPUT_DIR) / "20260101-000000")
run.mkdir(parents=True, exist_ok=True)
if kind == "train":
    (run / "config.yml").write_text(cfg.dump())
    (run / "checkpoint.pth").write_text("a checkpoint")
    with open(run / "log.jsonl", "a") as log:
        lines = [dict(time=1.5, kind="train", step=2, epoch=1, loss=3.0)]
        scores = {{"RAM (EMA)/ZSL/F1@3": 50.0, "RAM (EMA)/ZSL/mAP": 40.0}}
        lines += [dict(time=2.0, kind="val", epoch=1, step=2, **scores)]
        log.write("".join(json.dumps(line) + "\\n" for line in lines))
    if cfg.MODEL.MATCHER == os.environ.get("HANG") and not resume:
        time.sleep(60)
else:
    protocols = cfg.TEST.PROTOCOLS or ("ZSL", "GZSL")
    row = {{p: {{"F1@3": 50.0 + len(cfg.MODEL.MATCHER) + cfg.SOLVER.SEED, "mAP": 60.0}} for p in protocols}}
    about = dict(date="2026", checkpoint=dict(run=run.name, file="checkpoint.pth", epoch=cfg.SOLVER.MAX_EPOCHS + 1),
                 labels={{}}, lists={lists}, config=flat(cfg), environment={environment})
    place = run / "test" / "20260101-000001"
    if cfg.MODEL.METHOD == "zero-shot":
        about["checkpoint"], place = None, Path(cfg.OUTPUT_DIR) / "zero-shot" / "test" / "20260101-000001"
    place.mkdir(parents=True, exist_ok=True)
    results = {{"zero-shot CLIP": row, "RAM": row, "RAM (EMA)": row}}
    (place / "results.json").write_text(json.dumps(dict(about=about, results=results)))
"""


@pytest.fixture
def planned():
    """Plans some tables on one of the repository's benchmarks."""

    def make(*names, file="configs/shapes.yml", seeds=(1,), overrides=()):
        return plan(names, Benchmark((str(work.ROOT / file),), tuple(overrides)), seeds)

    return make


def content(job, values, *, clip="a CLIP"):
    """What a result file of a job holds: one value of all metrics under both protocols, but interpolated mAP 1 more."""
    protocols = ("ZSL",) if "TEST.PROTOCOLS" in job.config else ("ZSL", "GZSL")
    rows = {
        m: {p: {"F1@3": v, "mAP": v, "mAP_interpolated": v + 1} for p in protocols} for m, v in values.items()
    }  # fmt: skip
    about = {"lists": LISTS, "labels": {}, "date": "2026", "environment": ENVIRONMENT,
             "config": {"MODEL.CLIP_WEIGHTS": "a file"}}  # fmt: skip
    log = [{"kind": "train", "time": s / 10, "step": s, "loss": 9.0 / s} for s in (1, 2, 3)] if job.seed else []
    return outcomes.content_of(
        job, {"about": about, "results": rows}, log, clip=clip, seconds=120.0, memory=1.0
    )  # fmt: skip


@pytest.fixture
def made_up():
    """`content`."""
    return content


@pytest.fixture
def filled(tmp_path):
    """Writes result files of the jobs of a plan; gives their folder. Values are drawn, or a function of the job."""

    def write(plan, value=None, folder=None):
        folder = folder or tmp_path / "results" / "shapes"
        folder.mkdir(parents=True, exist_ok=True)
        draw = random.Random(0)
        for job in plan.jobs:
            number = value(job) if value else 60 + draw.random()
            (folder / job.file).write_text(json.dumps(content(job, {"zero-shot CLIP": 50.0, "RAM": number})))
        return folder

    return write


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Lets programs of a tenth of a second stand for train.py and test.py; gives a place for OUTPUT_DIR."""
    text = PROGRAM.format(root=str(work.ROOT), lists=LISTS, environment=ENVIRONMENT)
    for kind in ("train", "test"):
        (tmp_path / f"{kind}.py").write_text(text.replace("sys.argv[1], sys.argv[2:]", f"{kind!r}, sys.argv[1:]"))
    (tmp_path / "tools" / "reproduction").mkdir(parents=True)
    speed = "import json, sys\nkinds = ('train images/s', 'test images/s', 'train GB', 'test GB')\n"
    speed += "values = {kind: [1.0, 2.0] for kind in kinds}\n"
    speed += "open(sys.argv[-1], 'w').write(json.dumps({'values': values, 'machine': 'a processor'}))\n"
    (tmp_path / "tools" / "reproduction" / "speed.py").write_text(speed)
    monkeypatch.setattr(runner, "POLL", 0.01)
    monkeypatch.setattr(work, "_script", lambda name: str(tmp_path / name))
    monkeypatch.setattr(work, "load_state", lambda path: SimpleNamespace(clip="a CLIP"))  # noqa: ARG005
    return tmp_path / "runs"


@pytest.fixture
def known_tables(monkeypatch):
    """Leaves the tables that need no compared method."""
    monkeypatch.setattr(tables, "NAMES", HERE)


@pytest.fixture
def interruptible():
    """A process that signals reach, as some do not in the background of a shell or behind nohup."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {kind: signal.signal(kind, handler) for kind, handler in wanted.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)
