"""How scripts end: users' errors are one line and exit code 2, anything else keeps its traceback."""

import sys
import warnings
from collections.abc import Callable

__all__ = ["run"]

OURS = frozenset({"configs", "clip", "model", "loss", "datasets", "engine", "tools"})


def run(main: Callable[[], int | None]) -> int:
    """The exit code of `main`: 2 with one line on stderr for an error of our own, 130 when interrupted.

    An error is our own if its class is defined in this project: it was raised at the boundary, with a message
    for the user. Warnings are shown as one line too, as long as `main` runs.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line_warning
            return main() or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except (ValueError, OSError) as error:
        if type(error).__module__.split(".")[0] not in OURS:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 2


def _one_line_warning(message, category, filename, lineno, file=None, line=None) -> None:  # noqa: ARG001, ANN001
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)  # noqa: T201
