import getpass
import json
import os
import platform
import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from engine.atomic import WriteError
from engine.run import (
    DeviceError,
    RunError,
    autocast_dtype,
    environment,
    new_run,
    newest_run,
    resolve_device,
    write_environment,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA devices")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def git(folder, *arguments):
    settings = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    done = subprocess.run(("git", "-C", str(folder), *settings, *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    return tmp_path


def run_folder(output_dir, name, *files):
    (output_dir / name).mkdir(parents=True)
    for file in files:
        (output_dir / name / file).touch()
    return output_dir / name


def test_a_new_run_is_an_empty_folder_named_by_the_time(tmp_path):
    folder = new_run(tmp_path / "runs" / "ram")
    assert folder.parent == tmp_path / "runs" / "ram"
    assert re.fullmatch(r"\d{8}-\d{6}", folder.name)
    assert list(folder.iterdir()) == []


def test_a_run_is_the_newest_though_the_clock_went_back(tmp_path, monkeypatch):
    for name in ("20261025-025959", "20261025-025959-3", "notes", "20270101-000000.bak"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr("time.strftime", lambda _: "20261025-020000")
    made = new_run(tmp_path)
    assert made.name == "20261025-025959-4"
    (made / "checkpoint.pth").touch()
    assert newest_run(tmp_path) == made


def test_runs_within_one_second_have_folders_of_their_own(tmp_path):
    folders = [new_run(tmp_path) for _ in range(20)]
    assert len(set(folders)) == 20
    assert any(re.fullmatch(r"\d{8}-\d{6}-3", folder.name) for folder in folders)


def test_runs_within_one_second_are_ordered(tmp_path):
    for _ in range(20):
        (folder := new_run(tmp_path)).joinpath("checkpoint.pth").touch()
        assert newest_run(tmp_path) == folder


def test_a_file_in_place_of_the_output_folder_is_an_error(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(RunError, match=f"cannot make a run folder in {tmp_path}/runs: File exists"):
        new_run(tmp_path / "runs")


def test_the_newest_run_is_the_latest_that_holds_the_file(tmp_path):
    run_folder(tmp_path, "20250101-000000", "checkpoint.pth")
    expected = run_folder(tmp_path, "20250301-000000", "checkpoint.pth")
    run_folder(tmp_path, "20250401-000000", "log.jsonl")
    os.utime(expected / "checkpoint.pth", (0, 0))  # as after copying
    assert newest_run(tmp_path) == expected


def test_another_file_can_be_asked_for(tmp_path):
    run_folder(tmp_path, "20250101-000000", "checkpoint.pth")
    expected = run_folder(tmp_path, "20240101-000000", "best.pth")
    assert newest_run(tmp_path, "best.pth") == expected


def test_folders_of_other_names_are_no_runs(tmp_path):
    run_folder(tmp_path, "pretrained", "checkpoint.pth")
    run_folder(tmp_path, "20250101-000000-old", "checkpoint.pth")
    assert newest_run(tmp_path) is None


def test_an_output_folder_that_does_not_exist_has_no_runs(tmp_path):
    assert newest_run(tmp_path / "none") is None


def test_the_environment_names_versions_and_hardware():
    found = environment()
    assert found["python"] == platform.python_version()
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert set(found) >= {"torchvision", "open_clip_torch", "numpy", "cuda", "gpus", "dirty"}
    assert found["cpu"] is None or len(found["cpu"]) > 2
    assert found["cpu_count"] == os.cpu_count()
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("engine.run.PACKAGES", ("numpy", "no-such-package"))
    found = environment()
    assert found["no-such-package"] is None
    assert found["numpy"] is not None


def test_where_linux_does_not_name_the_cpu_python_does(monkeypatch, tmp_path):
    monkeypatch.setattr("engine.run.CPU_INFO", tmp_path / "none")
    assert environment()["cpu"] == (platform.processor() or None)


def test_the_environment_has_the_number_of_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert environment()["threads"] == before + 1
    finally:
        torch.set_num_threads(before)


def test_the_environment_names_no_machine_person_or_path():
    text = json.dumps(environment())
    for private in (socket.gethostname(), str(Path.home()), str(Path.cwd())):
        assert private not in text
    assert getpass.getuser() not in re.findall(r"\w+", text)


def test_the_environment_has_the_commit_of_a_clean_tree(repository):
    found = environment(repository)
    assert found["commit"] == git(repository, "rev-parse", "HEAD")
    assert found["dirty"] is False


def test_changed_files_make_the_tree_dirty(repository):
    (repository / "a.py").write_text("a = 2\n")
    assert environment(repository)["dirty"] is True


def test_files_that_git_does_not_know_leave_the_tree_clean(repository):
    (repository / "data.json").touch()
    assert environment(repository)["dirty"] is False


def test_without_a_repository_the_commit_is_unknown(tmp_path):
    found = environment(tmp_path)
    assert (found["commit"], found["dirty"]) == (None, None)


def test_without_git_the_commit_is_unknown(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    assert environment(repository)["commit"] is None


def test_the_environment_is_written_as_json(tmp_path):
    write_environment(tmp_path)
    assert json.loads((tmp_path / "environment.json").read_text()) == environment()


def test_an_environment_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(WriteError, match="none/environment.json: cannot write"):
        write_environment(tmp_path / "none")


def test_cpu_is_the_cpu():
    assert resolve_device("cpu") == CPU


@without_gpu
def test_auto_is_the_cpu_without_a_gpu():
    assert resolve_device("auto") == CPU


@pytest.mark.parametrize(
    ("name", "gpus", "rank", "device"),
    [("auto", 0, "3", "cpu"), ("auto", 4, "3", "cuda:3"), ("cuda", 4, "3", "cuda:3"), ("auto", 2, "3", "cuda:1"),
     ("cpu", 4, "3", "cpu"), ("cuda:1", 4, "3", "cuda:1"), ("cuda", 2, None, "cuda")],
)  # fmt: skip
def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch, name, gpus, rank, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert resolve_device(name) == torch.device(device)


@pytest.mark.gpu
@with_gpu
def test_auto_is_the_gpu_where_there_is_one():
    assert resolve_device("auto").type == "cuda"


@pytest.mark.gpu
@with_gpu
def test_a_gpu_can_be_asked_for_by_its_index():
    assert (
        torch.zeros(1, device=resolve_device("cuda:0")).device == torch.zeros(1, device=resolve_device("cuda")).device
    )


@without_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_asking_for_a_gpu_that_is_not_there_is_an_error(name):
    with pytest.raises(DeviceError, match=f"{name} is not available, torch sees 0 GPUs: choose cpu or auto"):
        resolve_device(name)


def test_an_index_beyond_the_gpus_is_an_error():
    with pytest.raises(DeviceError, match="cuda:99 is not available"):
        resolve_device("cuda:99")


def test_mps_is_given_where_it_is_and_an_error_elsewhere():
    if torch.backends.mps.is_available():
        assert resolve_device("mps") == torch.device("mps")
    else:
        with pytest.raises(DeviceError, match="mps is not available here"):
            resolve_device("mps")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "", "meta"])
def test_an_unknown_device_is_an_error(name):
    with pytest.raises(DeviceError, match=f"unknown device '{name}': auto, cpu"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("fp16", GPU, torch.float16),
        ("bf16", GPU, torch.bfloat16),
        ("off", GPU, None),
        ("fp16", CPU, None),
        ("off", CPU, None),
    ],
)
def test_autocast_is_what_is_asked_for_but_for_fp16_on_a_cpu(name, device, dtype):
    assert autocast_dtype(name, device) == dtype  # and warns of nothing


@pytest.mark.parametrize("has", [{"avx512_bf16": True}, {"avx512_bf16": False, "amx_bf16": True}])
def test_a_cpu_with_instructions_for_bf16_uses_them(monkeypatch, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert autocast_dtype("bf16", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("has", "library"), [({"avx512_bf16": False}, True), ({"neon": True}, True), ({"avx512_bf16": True}, False)]
)
def test_a_cpu_without_computes_in_float32_and_says_so(monkeypatch, has, library):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    with pytest.warns(UserWarning, match="neither AVX512-BF16 nor AMX: it computes in float32, not in bf16"):
        assert autocast_dtype("bf16", CPU) is None


@pytest.mark.parametrize("device", [CPU, GPU])
def test_an_unknown_precision_is_an_error_on_every_device(device):
    with pytest.raises(DeviceError, match="unknown precision 'fp8': off, fp16 or bf16"):
        autocast_dtype("fp8", device)
