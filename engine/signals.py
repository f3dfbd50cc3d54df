"""What schedulers ask of a training by signals: SIGTERM to save and end, SIGUSR1 to save and go on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Requests", "Terminated", "requests"]


class Terminated(BaseException):
    """SIGTERM: whoever catches it ends with code 143, as a shell says of a process that it ended."""


class Requests:
    """What has been asked for.

    Attributes:
        save: SIGUSR1 came; whoever saves sets it back.
        end: SIGTERM came where it had to wait.
    """

    def __init__(self) -> None:
        self.save = self.end = False
        self._waits = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """SIGTERM waits for the end of the block, or until somebody sees `end`; the second one ends at once."""
        self._waits = True
        try:
            yield
        except RuntimeError as error:
            if str(error).startswith("DataLoader worker"):  # it was sent SIGTERM too, and died first
                self.obey()
            raise
        finally:
            self._waits = False
        self.obey()

    def obey(self) -> None:
        """Raises Terminated if SIGTERM came."""
        if self.end:
            raise Terminated

    def _on_usr1(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.save = True

    def _on_term(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        again, self.end = self.end, True
        if again or not self._waits:
            raise Terminated


@contextmanager
def requests() -> Iterator[Requests]:
    """Listens to both signals; in the main thread alone, where they arrive."""
    made = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield made
        return
    handlers = {signal.SIGTERM: made._on_term}
    if hasattr(signal, "SIGUSR1"):  # not on Windows
        handlers[signal.SIGUSR1] = made._on_usr1
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield made
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
