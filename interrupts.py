"""Ctrl-C while a script still imports what takes seconds ends it in one line, as it does later; import this first."""

import sys
from types import TracebackType


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # noqa: T201
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _told
