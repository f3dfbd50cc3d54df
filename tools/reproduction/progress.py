"""What is said while runs are under way: which begin and end, and how long the rest will take."""

import statistics
import time
from collections.abc import Sequence
from typing import Any

from tools.reproduction.runner import Failure, Usage

__all__ = ["Progress", "duration"]


class Progress:
    """Prints a line for each event.

    The time that is left is told from the runs that are finished: of this start, or, before there are any, of earlier
    ones.

    Args:
        total: tasks.
        jobs: at once.
        earlier: seconds that runs of before took.
    """

    def __init__(self, total: int, jobs: int, earlier: Sequence[float]) -> None:
        self.total, self.jobs, self.ended = total, jobs, 0
        self._earlier = [seconds for seconds in earlier if seconds > 0]
        self._took: list[float] = []
        self._begun: dict[str, float] = {}

    def begin(self, finished: int) -> None:
        """Says what there is to do."""
        print(f"{finished} runs are finished, {self.total} to do, {self.jobs} at a time{self._left()}", flush=True)

    def said(self, what: str, name: str, detail: Any) -> None:
        """Takes in an event of `runner.run_all`."""
        if what == "begins":
            self._begun[name] = time.monotonic()
            print(f"{name} begins", flush=True)
            return
        self.ended += 1
        self._begun.pop(name, None)
        if isinstance(detail, Usage):
            self._took.append(detail.seconds)
            said = f"done in {duration(detail.seconds)}"
        else:
            assert isinstance(detail, Failure)
            said = f"failed: {detail.why}; log: {detail.log}"
        print(f"[{self.ended}/{self.total}] {name} {said}{self._left()}", flush=True)

    def _left(self) -> str:
        """About how long the rest takes, "" where nothing is known or left."""
        took, left = self._took or self._earlier, self.total - self.ended
        if not took or not left:
            return ""
        under_way = sum(min(time.monotonic() - begun, statistics.mean(took)) for begun in self._begun.values())
        seconds = max(0.0, left * statistics.mean(took) - under_way) / min(self.jobs, left)
        return f"; about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Such as "45 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
