"""Shards to their outputs, by as many processes as there are: each takes what is not done and nobody is at work on."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tagging.predictor import Prediction, Predictor, Unreadable
from tagging.shards.outputs import Outputs, Tally
from tagging.shards.shard import Shard, ShardError
from tagging.source import Source, tagger_of
from tagging.spellings import Spellings

__all__ = ["Job", "Settled", "Tagging", "settle", "work_off"]

POLL = 1.0  # seconds between looks at shards that others are at work on


class Job(NamedTuple):
    """All that a process needs to begin; it can be pickled."""

    out: Path
    source: Source
    spellings: Spellings
    score: str
    threshold: float | str | None
    top: int | None
    clip_weights: str | None
    batch: int
    threads: int  # that read pictures
    question: Mapping[str, Any]  # of `Outputs`

    def outputs(self) -> Outputs:
        """Where answers go."""
        return Outputs(self.out, "probabilities" if self.score == "probability" else "scores", self.question)

    def predictor(self, device: str | Any) -> Predictor:
        """What answers; raises UserError in one line if it cannot be made."""
        tagger = tagger_of(
            self.source, self.spellings, score=self.score, clip_weights=self.clip_weights, device=device
        )  # fmt: skip
        return Predictor(tagger, self.spellings, score=self.score, threshold=self.threshold, top=self.top)


class Tagging:
    """Tags whole shards; the model is made for the first one.

    Args:
        job: what is asked.
        outputs: where answers go.
        device: where to compute.
        seen: is told how many pictures have been answered, batch by batch.

    Attributes:
        outputs: as given.
    """

    def __init__(
        self, job: Job, outputs: Outputs, device: Any, seen: Callable[[int], object] = lambda count: None  # noqa: ARG005
    ) -> None:  # fmt: skip
        self._job, self.outputs, self._device, self._seen = job, outputs, device, seen
        self._predictor: Predictor | None = None

    def __call__(self, shard: Shard) -> Tally:
        """Writes the output of a shard.

        Batches are formed within it, so its output does not depend on the other shards, nor on who tags them.

        Raises:
            ShardError: if it is damaged; nothing is written.
            WriteError: if the system refuses.
        """
        if self._predictor is None:
            self._predictor = self._job.predictor(self._device)
        batches = self._predictor.answers(shard.pictures(), self._job.batch, threads=self._job.threads)
        return self.outputs.write(shard, chain.from_iterable(map(self._counted, batches)))

    def _counted(self, answers: list[Prediction | Unreadable]) -> list[Prediction | Unreadable]:
        self._seen(len(answers))
        return answers


class Settled(NamedTuple):
    """A shard that is done, or that this process could not tag."""

    shard: Shard
    tally: Tally | None
    error: ShardError | None


def work_off(shards: Sequence[Shard], outputs: Outputs, tag: Callable[[Shard], object]) -> Iterator[Settled]:
    """Each shard once it is settled, whoever did it.

    A shard is taken if it is not done and nobody else is at work on it. In the end this waits for the others: should
    one of them die, its shard is taken over.

    Args:
        shards: all of them; processes that begin at different ones meet late.
        outputs: where answers go.
        tag: writes the output of a shard.

    Raises:
        OutputError: if an output is there that answers something else.
        WriteError: if the system refuses.
    """
    left = list(shards)
    while left:
        waiting = []
        for shard in left:
            settled = settle(shard, outputs, tag)
            if settled is None:
                waiting.append(shard)
            else:
                yield settled
        if len(waiting) == len(left):
            time.sleep(POLL)
        left = waiting


def settle(shard: Shard, outputs: Outputs, tag: Callable[[Shard], object]) -> Settled | None:
    """The shard, tagged here if it was not done; None if somebody else is at work on it. Raises as `work_off`."""
    try:
        if (tally := outputs.finished(shard)) is not None:
            return Settled(shard, tally, None)
        with outputs.claims.claimed(shard.name) as mine:
            if not mine:
                return None
            if outputs.finished(shard) is None:  # or somebody finished it since
                tag(shard)
            return Settled(shard, outputs.finished(shard), None)
    except ShardError as error:
        return Settled(shard, None, error)
