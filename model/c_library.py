"""C files as shared libraries, compiled for the machine at hand by its own compiler when they are first asked for.

What was compiled is kept in ~/.cache/ram, or below XDG_CACHE_HOME, under a name that changes with the source, the
compiler and the processor. Where that folder cannot be written it is compiled anew by each process.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from errors import UserError
from files import cache_folder

__all__ = ["CompilerError", "shared_library"]

COMPILERS = ("cc", "gcc", "clang")  # the first that there is, unless CC names one
# Sums in whatever order is fastest only where the source says so (omp simd), and NaN as everywhere.
FLAGS = ("-std=c11", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-fPIC", "-shared")
TUNED = {"arm64": "-mcpu=native", "aarch64": "-mcpu=native"}  # by the machine; -march=native on others
LONGEST = 60  # seconds that a compiler may take
CPU_INFO = Path("/proc/cpuinfo")


class CompilerError(UserError, RuntimeError):
    """No compiler, or one whose library cannot be used."""


def shared_library(source: Path) -> ctypes.CDLL:
    """The library of a C file.

    Safe where several processes ask at once: each compiles in a folder of its own, and renames what it has loaded.

    Args:
        source: the file.

    Raises:
        CompilerError: if it cannot be compiled or loaded.
        OSError: if there is no such file.
    """
    command = [*_compiler(), *FLAGS, TUNED.get(platform.machine(), "-march=native")]
    depends_on = [source.read_bytes(), " ".join(command).encode(), _run([command[0], "--version"]), _processor()]
    key = hashlib.sha256(b"\0".join(depends_on)).hexdigest()[:16]
    cache = _cache()
    kept = cache / f"{source.stem}-{key}.so"
    with suppress(OSError):  # not there, or broken
        return ctypes.CDLL(str(kept))
    with _workplace(cache) as folder:
        made = Path(folder) / kept.name
        _run([*command, str(source), "-o", str(made)])
        try:
            library = ctypes.CDLL(str(made))
        except OSError as error:
            raise CompilerError(f"what {command[0]} makes cannot be loaded: {error}") from error
        with suppress(OSError):
            os.replace(made, kept)
        return library


def _cache() -> Path:
    try:
        return cache_folder()
    except OSError as error:
        raise CompilerError(error.strerror) from error


def _compiler() -> list[str]:
    """Its path, and arguments that CC may give it."""
    words = os.environ.get("CC", "").split()
    for name in words[:1] or COMPILERS:
        if (path := shutil.which(name)) is not None:
            return [path, *words[1:]]
    raise CompilerError(f"there is no C compiler here ({', '.join(words[:1] or COMPILERS)})")


def _run(command: list[str]) -> bytes:
    """What a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompilerError(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        raise CompilerError(f"{command[0]} ends with code {done.returncode}: {said[0]}")
    return done.stdout


def _processor() -> bytes:
    """What the machine's instructions depend on."""
    try:
        lines = CPU_INFO.read_bytes().splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines if line.lower().startswith((b"model name", b"flags", b"features"))})
    return b"\n".join([platform.machine().encode(), platform.processor().encode(), *told])


def _workplace(cache: Path) -> TemporaryDirectory[str]:
    """A new folder, in the cache if that can be written."""
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(dir=cache, prefix=".part-")
    try:
        return TemporaryDirectory()
    except OSError as error:
        raise CompilerError(f"there is no folder to compile in: {error.strerror}") from error
