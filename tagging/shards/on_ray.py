"""Shards spread over the machines of a Ray cluster, which share the disk of shards and outputs."""

import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.run import resolve_device
from errors import UserError
from tagging.shards.outputs import Outputs
from tagging.shards.shard import Shard, ShardError
from tagging.shards.work import Job, Settled, Tagging, settle

__all__ = ["RayError", "settled_on_ray"]

ROOT = Path(__file__).resolve().parents[2]


class RayError(UserError, RuntimeError):
    """What keeps an actor from going on."""


class Worker:
    """An actor that settles shards as a rank does.

    Args:
        job: what is asked.
        device: where to compute; of "auto", the GPU that Ray gives it.
    """

    def __init__(self, job: Job, device: str) -> None:
        self._job, self._device = job, device
        self._tag: Tagging | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What became of pickled shards: why they could not be tagged and why the work cannot go on, or "" for both.

        Exceptions would be told with the traces of two processes.
        """
        errors = [self._error(pickle.loads(content)) for content in batch["shard"]]
        return {
            "number": batch["number"],
            "damage": np.array([str(e) if isinstance(e, ShardError) else "" for e in errors]),
            "refusal": np.array([str(e) if e is not None and not isinstance(e, ShardError) else "" for e in errors]),
        }

    def _error(self, shard: Shard) -> UserError | None:
        try:
            if self._tag is None:
                self._tag = Tagging(self._job, self._job.outputs(), resolve_device(self._device))
            settled = settle(shard, self._tag.outputs, self._tag)
        except UserError as error:
            return error
        return ShardError(f"{shard.name}: another process is at work on it") if settled is None else settled.error


def settled_on_ray(
    shards: Sequence[Shard], job: Job, outputs: Outputs, *, device: str, workers: int | None
) -> Iterator[Settled]:
    """Shards as they are settled, on the cluster of RAY_ADDRESS, or else on this machine.

    Args:
        shards: with paths that are the same on all machines.
        job: what is asked, likewise.
        outputs: of the job, here.
        device: see `engine.run.resolve_device`.
        workers: processes that tag; None: as many as the cluster has GPUs, or one.

    Raises:
        RayError: with the one line of whatever keeps a worker from going on, such as a full disk.
    """
    import ray

    ray.init(runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}, log_to_driver=False, logging_level=logging.ERROR)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        rows = [{"number": number, "shard": pickle.dumps(shard)} for number, shard in enumerate(shards)]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Worker, fn_constructor_args=(job, device), batch_size=1, num_gpus=1 if gpus else 0,
            compute=ray.data.ActorPoolStrategy(size=min(workers or gpus or 1, len(rows))),
        )  # fmt: skip
        for row in data.iter_rows():
            if row["refusal"]:
                raise RayError(row["refusal"])
            shard, damage = shards[row["number"]], row["damage"]
            yield Settled(shard, outputs.finished(shard), ShardError(damage) if damage else None)
    finally:
        ray.shutdown()
