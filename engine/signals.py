"""What schedulers ask of a training by signals: SIGTERM to save and end, SIGUSR1 to save and go on."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from parallel import any_of_all, world_size

__all__ = ["Requests", "Terminated", "requests"]

ECHO = 5.0  # seconds in which a launcher passes SIGTERM on to processes that have it from the scheduler


class Terminated(BaseException):
    """SIGTERM: whoever catches it ends with code 143, as a shell says of a process that it ended."""


class Requests:
    """What has been asked for.

    Attributes:
        save: SIGUSR1 came to this process since `agreed`.
        end: SIGTERM came where it had to wait.
    """

    def __init__(self) -> None:
        self.save = self.end = False
        self._waits = False
        self._since = 0.0  # when the end was asked for

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

    def agreed(self) -> tuple[bool, bool]:
        """Whether any process has been asked to save since the last time, or to end: the same answer in all of them.

        What signals say to this process alone decides nothing that all have to do together.
        """
        mine, self.save = [self.save, self.end], False
        save, end = any_of_all(mine)
        if end:
            self._ask_to_end()
        return save, end

    def obey(self) -> None:
        """Raises Terminated if SIGTERM came."""
        if self.end:
            raise Terminated

    def _on_usr1(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.save = True

    def _on_term(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        again = self.end and not (world_size() > 1 and time.monotonic() - self._since < ECHO)
        self._ask_to_end()
        if again or not self._waits:
            raise Terminated

    def _ask_to_end(self) -> None:
        if not self.end:
            self.end, self._since = True, time.monotonic()


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
