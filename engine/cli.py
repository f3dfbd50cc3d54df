"""The command line of all scripts: how it is read, and how it ends."""

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence

from engine.signals import Terminated
from errors import UserError
from parallel import is_first, tells_of_failure

__all__ = ["add_configuration", "add_overrides", "give_up_stdout", "parser", "read", "run"]

OUT_OF_MEMORY = ("out of memory", "can't allocate memory")  # as torch says it of GPUs and of processors
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """A parser that describes a script by the first line of its docstring."""
    return argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])


def add_configuration(made: argparse.ArgumentParser) -> None:
    """`config_file`, a list of files or None."""
    what = "YAML in configs/; may be given again, the last counts where they differ; without one, the defaults"
    made.add_argument("--config_file", action="append", metavar="FILE", help=what)


def add_overrides(made: argparse.ArgumentParser, example: str) -> None:
    """KEY VALUE pairs, which become `opts`."""
    made.add_argument("opts", nargs="*", metavar="KEY VALUE", help=f"such as {example}")


def read(made: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; options may stand before, between and behind KEY VALUE pairs.

    An option whose value may be left out does not take a key for it.
    """
    line = list(sys.argv[1:] if arguments is None else arguments)
    optional = {name: action for action in made._actions if action.nargs == "?" for name in action.option_strings}
    for place, word in enumerate(line[:-1]):
        if word in optional and KEY.fullmatch(line[place + 1]):
            line[place] = f"{word}={optional[word].const}"
    return made.parse_intermixed_args(line)


def run(main: Callable[[], int | None]) -> int:
    """The exit code of `main`: 2 with one line on stderr for what the user can mend, 130 interrupted, 143 ended.

    Besides every `UserError` that is what the system refuses, such as a full disk, and the death of a process that
    reads images. Warnings are shown as one line too, as long as `main` runs.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line_warning
            code = main() or 0
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        return _ended(130, "interrupted")
    except Terminated:
        return _ended(143, "ended by SIGTERM; --resume goes on with a training")
    except UserError as error:
        return _ended(2, f"error: {error}")
    except OSError as error:
        if not error.strerror:  # not of the system
            raise
        return _ended(2, f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}")
    except RuntimeError as error:
        if (ended := _of_runtime(error)) is None:
            raise
        return _ended(*ended)
    except MemoryError:
        return _ended(2, "error: the memory is full; smaller batches or images take less of it")


def _of_runtime(error: RuntimeError) -> tuple[int, str] | None:
    """Code and line for errors of torch that are the user's to mend; None for others."""
    if isinstance(error.__context__, KeyboardInterrupt):  # torch.save, interrupted, says something else
        return 130, "interrupted"
    if str(error).startswith("DataLoader worker"):
        return 2, f"error: {error} Perhaps the memory was full: fewer DATALOADER.NUM_WORKERS take less of it"
    if any(words in str(error) for words in OUT_OF_MEMORY):
        return 2, f"error: {error}; smaller batches or images take less memory"
    return None


def _ended(code: int, line: str) -> int:
    """The code, after one line on stderr. What could not be written to stdout is given up."""
    if tells_of_failure():
        print(" ".join(line.split()), file=sys.stderr)  # noqa: T201
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            give_up_stdout()
    return code


def give_up_stdout() -> None:
    """What is still to be written to stdout, which nobody reads or no disk holds, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ARG001, ANN001
    if is_first():
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)  # noqa: T201
