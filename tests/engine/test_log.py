import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.dashboard import LogError, metric_name
from engine.log import RunLog
from engine.metrics import Metrics
from engine.results import Result

BLOCK, HEADER = 32768, 7  # of the LevelDB log format, which wandb writes


def lines(folder):
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    content = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in content.splitlines()]


def logged(folder, **values):
    with RunLog(folder) as log:
        log.write("train", **values)
    (line,) = lines(folder)
    return {key: value for key, value in line.items() if key not in ("time", "kind")}


def offline_records(folder):
    """Everything that `wandb sync` would upload; on a busy machine wandb's service writes the end after `finish`."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + 30
    while True:
        records = parsed(file)
        if any(record.WhichOneof("record_type") == "exit" for record in records) or time.monotonic() > deadline:
            return records
        time.sleep(0.2)


def parsed(file):
    """The records of an offline run, as far as they are written."""
    from wandb.proto import wandb_internal_pb2

    content, position, message, records = file.read_bytes(), HEADER, b"", []
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # padding
            position += BLOCK - position % BLOCK
        length, part = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        message += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if part in (1, 4):  # whole, or last part
            records.append(wandb_internal_pb2.Record.FromString(message))
            message = b""
    return records


def offline_history(folder):
    history = [record.history for record in offline_records(folder) if record.WhichOneof("record_type") == "history"]
    items = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in h.item} for h in history]
    return [{key: value for key, value in item.items() if not key.startswith("_")} for item in items]


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    """A home in which nobody is logged in to Weights & Biases."""
    import wandb

    home = tmp_path_factory.mktemp("home")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # it reads the environment once per process
    yield home
    wandb.teardown()


def test_every_event_is_one_line_with_its_time_and_kind(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("train", step=1, loss=0.5)
        log.write("test", f1=41.5)
    first, second = lines(tmp_path)
    assert (first.pop("kind"), second.pop("kind")) == ("train", "test")
    assert 0 <= first.pop("time") <= second.pop("time") < 60
    assert (first, second) == ({"step": 1, "loss": 0.5}, {"f1": 41.5})


def test_an_event_can_be_read_as_soon_as_it_is_written(tmp_path):
    with RunLog(tmp_path) as log:
        log.write("train", loss=0.5)
        assert len(lines(tmp_path)) == 1


def test_numbers_of_torch_and_numpy_are_numbers(tmp_path):
    values = {"a": torch.tensor(0.5, requires_grad=True), "b": np.float32(0.25), "c": np.int64(3), "d": np.array(2.0)}
    assert logged(tmp_path, **values) == {"a": 0.5, "b": 0.25, "c": 3, "d": 2.0}


def test_what_is_not_a_finite_number_becomes_null(tmp_path):
    values = {"a": math.nan, "b": torch.tensor(math.inf), "c": np.float64(-math.inf), "d": [1.0, math.nan]}
    assert logged(tmp_path, **values) == {"a": None, "b": None, "c": None, "d": [1.0, None]}


def test_nested_values_keep_their_structure(tmp_path):
    values = {"labels": {"rød cirkel": torch.tensor([1, 2]), 3: (True, None)}, "path": "a\nb"}
    assert logged(tmp_path, **values) == {"labels": {"rød cirkel": [1, 2], "3": [True, None]}, "path": "a\nb"}


def test_the_time_of_the_log_cannot_be_replaced(tmp_path):
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match="'time' is the seconds since the start"):
        log.write("train", time=3)
    assert lines(tmp_path) == []


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path):
    for step in (1, 2):
        with RunLog(tmp_path) as log:
            log.write("train", step=step)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


@pytest.mark.parametrize("before", [b'{"step": 1}\n{"st', b'{"step": 1}\n'])
def test_only_a_line_that_was_cut_off_is_removed_on_resuming(tmp_path, before):
    (tmp_path / "log.jsonl").write_bytes(before)
    with RunLog(tmp_path) as log:
        log.write("train", step=2)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(LogError, match=r"cannot write .*none/log\.jsonl: No such file"):
        RunLog(tmp_path / "none")


@pytest.mark.parametrize("freed", [True, False])
def test_a_full_disk_is_an_error_until_the_end(tmp_path, freed):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = RunLog(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(LogError, match=r"log\.jsonl: File too large"):
            log.write("train", text="x" * 100)
        if not freed:
            with pytest.raises(LogError, match=r"log\.jsonl: File too large"):
                log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()
    assert freed == (tmp_path / "log.jsonl").read_bytes().endswith(b"\n")


def test_wandb_is_imported_only_where_it_is_wanted(tmp_path):
    code = (
        "import sys; from engine.log import RunLog\n"
        "with RunLog(sys.argv[1]) as log: log.write('train', loss=1.0); log.results('val', [])\n"
        "sys.exit('wandb' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run((sys.executable, "-c", code, str(tmp_path)), cwd=root, check=True)


def test_without_wandb_installed_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # how Python marks what cannot be imported
    with pytest.raises(LogError, match="pip install wandb"):
        RunLog(tmp_path, wandb_project="ram")


def result(f1=41.5):
    metrics = Metrics({"F1@3": f1, "mAP": 60.0}, {"AP": np.array([50.0, math.nan])}, {"images": 3})
    return Result("RAM (EMA)", "GZSL", metrics, ["red circle", "star"])


def named(records, kind):
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


@pytest.mark.usefixtures("home")
def test_without_a_login_wandb_gets_everything_offline(tmp_path):
    about = {"wandb_group": "shapes", "wandb_job": "ram", "wandb_tags": ("shapes", "seed-1")}
    with RunLog(tmp_path, wandb_project="ram", wandb_config={"SEED": 42}, **about) as log:
        log.write("train", epoch=1, step=7, loss=torch.tensor(0.5), lr_prompts=1e-3, solver_iterations=9.0,
                  temperature_local=2e-3, images_per_second=30.0)  # fmt: skip
        log.results("val", [result()], epoch=1, step=7)
    train, evaluated, table = offline_history(tmp_path)
    assert train == {
        "step": 7, "train/epoch": 1, "train/loss": 0.5, "solver/lr_prompts": 1e-3, "solver/iterations": 9.0,
        "solver/temperature_local": 2e-3, "system/images_per_second": 30.0,
    }  # fmt: skip
    assert evaluated == {"step": 7, "val/epoch": 1, "val/RAM-EMA/GZSL/F1@3": 41.5, "val/RAM-EMA/GZSL/mAP": 60.0}
    assert table["val/RAM-EMA/GZSL/AP-of-labels/nrows"] == 2
    (file,) = tmp_path.glob("wandb/offline-run-*/files/media/table/**/*.json")
    assert json.loads(file.read_text()) == {"columns": ["label", "AP"], "data": [["red circle", 50.0], ["star", None]]}
    (run,) = named(offline_records(tmp_path), "run")
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("ram", tmp_path.name, "shapes", "ram")
    assert list(run.tags) == ["shapes", "seed-1"]
    assert {"SEED": "42"}.items() <= {u.key: u.value_json for u in run.config.update}.items()
    assert named(offline_records(tmp_path), "exit")[0].exit_code == 0
    assert [line["kind"] for line in lines(tmp_path)] == ["train", "val"]


@pytest.mark.usefixtures("home")
def test_every_section_has_the_step_as_its_axis_and_the_best_value_in_its_summary(tmp_path):
    with RunLog(tmp_path, wandb_project="ram") as log:
        for step, f1 in ((1, 40.0), (2, 50.0), (3, 45.0)):
            log.results("val", [result(f1)], step=step)
    metrics = named(offline_records(tmp_path), "metric")
    axes = {metric.glob_name or metric.name: metric.step_metric for metric in metrics}
    assert {axes[f"{section}/*"] for section in ("train", "val", "test", "solver", "system")} == {"step"}
    best = [metric.name for metric in metrics if metric.summary.max]
    assert set(best) == {"val/RAM-EMA/GZSL/F1@3", "val/RAM-EMA/GZSL/mAP"}
    assert len(best) == 2  # told once, not at every step


@pytest.mark.usefixtures("home")
def test_a_resumed_run_is_the_same_run(tmp_path):
    ids = set()
    for _ in range(2):
        with RunLog(tmp_path, wandb_project="ram") as log:
            log.write("train", step=1, loss=0.5)
        ids.add((tmp_path / "wandb_id").read_text())
    folders = [folder.name for folder in tmp_path.glob("wandb/offline-run-*")]
    assert len(ids) == 1
    assert all(f"-{ids.copy().pop().strip()}" in folder for folder in folders)


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [
        ("train", "loss", "train/loss"), ("train", "lr_adapters", "solver/lr_adapters"),
        ("train", "solver_error", "solver/error"), ("train", "peak_memory_gb", "system/peak_memory_gb"),
        ("test", "zero-shot CLIP/ZSL/P@3", "test/zero-shot-CLIP/ZSL/P@3"), ("val", "solver_error", "val/solver_error"),
        ("val", "a [b] (c)", "val/a-b-c"),
    ],
)  # fmt: skip
def test_names_have_sections_and_no_blanks_or_brackets(kind, key, name):
    assert metric_name(kind, key) == name


@pytest.mark.usefixtures("home")
def test_an_exception_marks_the_run_as_failed(tmp_path):
    def fails():
        with RunLog(tmp_path, wandb_project="ram"):
            raise KeyError("training failed")

    pytest.raises(KeyError, fails)
    (code,) = [r.exit.exit_code for r in offline_records(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert code == 1


@pytest.mark.usefixtures("home")
def test_wandb_mode_is_heeded(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with RunLog(tmp_path, wandb_project="ram") as log:
        log.write("train", loss=0.5)
    assert {path.name for path in tmp_path.iterdir()} == {"log.jsonl", "wandb_id"}


@pytest.mark.usefixtures("home")
def test_a_login_makes_the_run_online_and_its_faults_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    with pytest.raises(LogError, match="does not start .*API key.* WANDB_MODE=offline") as caught:
        RunLog(tmp_path, wandb_project="ram")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_a_login_in_netrc_is_found(tmp_path, home, monkeypatch, name):
    (home / name).write_text("machine api.wandb.ai login user password too-short\n")
    if name == "elsewhere":
        monkeypatch.setenv("NETRC", str(home / name))
    with pytest.raises(LogError, match="API key"):
        RunLog(tmp_path, wandb_project="ram")


@pytest.mark.parametrize("content", ["machine example.org login user password secret\n", "machine\n"])
def test_a_netrc_without_a_login_for_wandb_leaves_it_offline(tmp_path, home, content):
    (home / ".netrc").write_text(content)
    with RunLog(tmp_path, wandb_project="ram"):
        pass
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_what_happens_again_is_logged_once_and_time_goes_on(tmp_path):
    lines = [
        {"time": 1.5, "kind": "start"},
        {"time": 2.5, "kind": "train", "epoch": 1, "step": 2},
        {"time": 3.5, "kind": "train", "epoch": 1, "step": 4},
        {"time": 5.0, "kind": "val", "epoch": 1, "step": 4, "x": 1},
        {"time": 9.0, "kind": "train", "epoch": 2, "step": 6},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"time": 9.5, "ki')
    with RunLog(tmp_path, resumed=(1, 4)) as log:
        log.write("train", epoch=2, step=5)
    *kept, last = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert kept == lines[:3]  # the evaluation of the first epoch comes again
    assert 3.5 <= last["time"] < 9


def test_of_a_finished_epoch_the_evaluation_stays(tmp_path):
    lines = ['{"time": 1, "kind": "val", "epoch": 1, "step": 4}\n', "no JSON\n", "[7]\n"]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    RunLog(tmp_path, resumed=(2, 4)).close()
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines)
