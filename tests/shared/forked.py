"""Scripts run in a fork of the tests' process, in which libraries are imported already: four seconds less each.

The script imports the project's own modules by itself. That it finds the libraries too a fork cannot show: tests of
tools/reproduce.py and of predict.py start train.py, test.py and predict.py afresh.
"""

import gc
import logging
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch

__all__ = ["Forked"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Forked:
    """A process as subprocess.Popen shows it; `stdout` and `stderr` are what it has written so far.

    Args:
        folder: an empty one, for what it writes to stdout and stderr.
        script: the file.
        arguments: of the command line.
        cwd: its working directory; None: that of the tests.
        env: more of the environment.
    """

    def __init__(
        self,
        folder: Path,
        script: Path,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._stdout, self._stderr = folder / "stdout.txt", folder / "stderr.txt"
        for file in (self._stdout, self._stderr):
            file.touch()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            line = [os.fspath(script), *map(str, arguments)]
            _become(line, cwd or Path(), env or {}, (self._stdout, self._stderr))

    @property
    def stdout(self) -> str:
        return self._stdout.read_text("utf-8")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text("utf-8")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None as long as it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, seconds: float = 120) -> int:
        """The exit code.

        Raises:
            TimeoutError: if it has not ended by then; it is killed.
        """
        deadline = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"{self.pid} has not ended: {self.stdout}{self.stderr}")
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()


def _become(line: list[str], cwd: Path, env: Mapping[str, str], written: tuple[Path, Path]) -> NoReturn:
    """The forked process becomes `python` with this line, and ends."""
    code = 1
    try:
        _as_started_afresh(written)
        _forget_the_project(Path(line[0]))
        os.environ.update(env)
        os.chdir(cwd)
        sys.argv = line
        runpy.run_path(line[0], run_name="__main__")
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not get into the tests
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _as_started_afresh(written: tuple[Path, Path]) -> None:
    """Takes back what pytest and other tests have set in their process."""
    gc.freeze()  # what the tests hold is not this process's to clean up
    for descriptor, name in ((0, os.devnull), (1, written[0]), (2, written[1])):
        os.dup2(os.open(name, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_APPEND), descriptor)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    logging.getLogger().handlers.clear()
    torch.set_num_threads(1)  # threads of torch do not survive a fork
    _default_warnings()


def _forget_the_project(script: Path) -> None:
    """The script has to find and import the project's modules by itself."""
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or os.sep)
        if ROOT in file.parents and "site-packages" not in file.parts:
            del sys.modules[name]
    sys.path[:] = [str(script.parent), *(place for place in sys.path if Path(place).resolve() not in {ROOT, HERE})]


def _default_warnings() -> None:
    """As Python sets them out; pytest makes them errors."""
    warnings.resetwarnings()
    for kind in (ResourceWarning, ImportWarning, PendingDeprecationWarning, DeprecationWarning):
        warnings.simplefilter("ignore", kind)
    warnings.filterwarnings("default", category=DeprecationWarning, module="__main__")

    def show(message, category, filename, lineno, file=None, line=None):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)

    warnings.showwarning = show
