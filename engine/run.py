"""Where a run writes to, and what it runs on: folders, provenance, device and precision."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from engine.atomic import atomic_write
from errors import UserError
from parallel import local_rank, world_size

__all__ = [
    "DeviceError",
    "RunError",
    "autocast_dtype",
    "environment",
    "new_run",
    "newest_run",
    "resolve_device",
    "write_environment",
]

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy")
CPU_INFO = Path("/proc/cpuinfo")
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # as torch calls them
PRECISIONS = {"off": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class RunError(UserError, OSError):
    """A run folder that cannot be made."""


class DeviceError(UserError, ValueError):
    """A device or precision that does not exist, in general or on this machine."""


def new_run(output_dir: str | Path) -> Path:
    """A new, empty folder OUTPUT_DIR/YYYYmmdd-HHMMSS (local time), with -2, -3, ... within the same second.

    Where a clock went back, it has the time of the newest run that is there, so that it is the newest then.

    Raises:
        RunError: if it cannot be made.
    """
    now = time.strftime("%Y%m%d-%H%M%S")
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        stamp, count = max([found for path in Path(output_dir).iterdir() if (found := _named(path))], default=(now, 0))
        stamp, count = (stamp, count + 1) if stamp >= now else (now, 1)
        while True:
            folder = Path(output_dir) / (stamp if count == 1 else f"{stamp}-{count}")
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # another process was quicker
                count += 1
    except OSError as error:
        raise RunError(f"cannot make a run folder in {output_dir}: {error.strerror}") from error


def newest_run(output_dir: str | Path, holding: str = "checkpoint.pth") -> Path | None:
    """The newest folder of `new_run` in `output_dir` with a file of the name `holding`; None if there is none.

    Newest by the name, which copying and resuming leave as it is.
    """
    runs = [(name, file.parent) for file in Path(output_dir).glob(f"*/{holding}") if (name := _named(file.parent))]
    return max(runs)[1] if runs else None


def _named(folder: Path) -> tuple[str, int] | None:
    """Time and count in the name of a run folder; None if it is none."""
    match = re.fullmatch(r"(\d{8}-\d{6})(?:-(\d+))?", folder.name)
    return None if match is None else (match[1], int(match[2] or 1))


def environment(root: str | Path = PROJECT) -> dict[str, Any]:
    """What a result depends on besides the configuration: versions, hardware, commit. None: not known here.

    Holds no names of people or machines and no paths, so that logs can be published as they are.

    Args:
        root: folder of the git repository.
    """
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "processes": world_size(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "commit": commit,
        "dirty": None if commit is None or changes is None else changes != "",
    }


def write_environment(folder: str | Path) -> None:
    """Writes `environment()` to environment.json in `folder`.

    Raises:
        WriteError: if it cannot be written.
    """
    with atomic_write(Path(folder) / "environment.json", "w") as file:
        file.write(json.dumps(environment(), indent=2) + "\n")


def resolve_device(name: str) -> torch.device:
    """The device of a name: auto (a CUDA GPU if there is one, else the CPU), cpu, cuda, cuda:<index> or mps.

    Of processes that torchrun started, auto and cuda give each a GPU of its own, as far as there are enough.

    Raises:
        DeviceError: if the name is none of these, or the hardware is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and (own := local_rank()) is not None and (gpus := torch.cuda.device_count()):
        name = f"cuda:{own % gpus}"
    match = re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", name)
    if match is None:
        raise DeviceError(f"unknown device {name!r}: auto, cpu, cuda, cuda:<index> or mps")
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps is not available here: choose cpu or auto")
    if name.startswith("cuda") and int(match[1] or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{name} is not available, torch sees {torch.cuda.device_count()} GPUs: choose cpu or auto")
    return torch.device(name)


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast; None for float32 throughout.

    That is for off and, on CPUs, for fp16; for bf16 too, with a warning, where the CPU cannot multiply it.

    Args:
        name: off, fp16 or bf16.
        device: where the model is.

    Raises:
        DeviceError: if the name is none of these, whatever the device.
    """
    if name not in PRECISIONS:
        raise DeviceError(f"unknown precision {name!r}: off, fp16 or bf16")
    dtype = PRECISIONS[name]
    if device.type != "cpu" or dtype is None:
        return dtype
    if dtype == torch.float16:
        return None
    if not _multiplies_bf16():
        warnings.warn("this CPU has neither AVX512-BF16 nor AMX: it computes in float32, not in bf16", stacklevel=1)
        return None
    return dtype


def _multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it and torch the library that uses them; without, bf16 is slower."""
    has = torch.cpu.get_capabilities()
    return torch.backends.mkldnn.is_available() and any(has.get(name, False) for name in BF16_INSTRUCTIONS)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: str | Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(("git", "-C", str(root), *arguments), capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_name() -> str | None:
    """The model, which `platform.processor` leaves out on Linux."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
