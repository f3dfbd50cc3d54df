"""The processes of a run: how many, which one this is, and how they hand each other plain values.

torchrun tells each of them by environment variables. A process that fails says so in one line and the others, which
cannot go on without it, end in silence.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from errors import UserError

__all__ = [
    "LostProcessError",
    "any_of_all",
    "connect",
    "from_first",
    "gathered",
    "is_first",
    "joined",
    "local_rank",
    "rank",
    "tells_of_failure",
    "wait_for_all",
    "world_size",
]

Value = TypeVar("Value")
LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What gloo, NCCL and the store say where the other side of a connection is gone.
LOST = (
    "closed by peer", "Connection reset", "Broken pipe", "remote process exited", "Connection refused", "Timed out",
    "failed to recv",
)  # fmt: skip
FAILED = "failed"  # counts in the store the processes that have failed
_store: dist.Store | None = None  # of the launcher, so that it outlives every process of the group


class LostProcessError(UserError, RuntimeError):
    """Another process of the run is gone, so that this one cannot go on."""


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Makes the process one of those that torchrun started together; without torchrun nothing happens.

    All but the first print nothing. Every process of the run has to enter; `connect` makes them a group.

    Raises:
        LostProcessError: if one of the others is gone.
    """
    global _store
    _store = None
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if missing := [name for name in LAUNCHED if name not in os.environ]:
        raise UserError(f"WORLD_SIZE is set, but {missing[0]} is not: start several processes by torchrun")
    try:
        shared, _, _ = next(iter(dist.rendezvous("env://")))
        # torchrun starts processes anew with the store of those that failed (--max_restarts).
        _store = dist.PrefixStore(f"ovmlr/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", shared)
        with contextlib.ExitStack() as stack:
            if os.environ["RANK"] != "0":
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST):
            raise
        raise LostProcessError("another process of this run has ended; --resume goes on with a training") from error
    if dist.is_initialized():  # not after a failure, where it could wait for processes that are gone
        dist.destroy_process_group()


def connect(device: torch.device) -> None:
    """Makes the processes a group that computes on `device`, each on its own; nothing where there is one process.

    Raises:
        UserError: if there are more processes than GPUs on this machine, or they do not take one each.
    """
    if _store is None or dist.is_initialized():
        return
    if device.type == "mps":
        raise UserError("several processes cannot train on mps: choose DEVICE cpu, or one process")
    if device.type == "cuda":
        _require_own(device)
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    count, index = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    dist.init_process_group(backend, store=_store, world_size=count, rank=index)


def _require_own(device: torch.device) -> None:
    count, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if count > gpus:  # decided alike in all of them: one alone would wait for the others
        raise UserError(f"{count} processes and {gpus} GPUs on this machine: start one for each GPU")
    if count > 1 and device.index != local_rank():
        raise UserError(f"{device} is one GPU, and each of {count} processes needs its own: DEVICE auto gives it")


def world_size() -> int:
    """How many processes the group has; 1 before `connect`."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; known as soon as it has `joined` them."""
    return 0 if _store is None else int(os.environ["RANK"])


def is_first() -> bool:
    """Whether this process writes files, logs and messages."""
    return rank() == 0


def local_rank() -> int | None:
    """Which of the processes on this machine this is, from 0; None where torchrun has started none."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def gathered(value: Value) -> list[Value] | None:
    """What all processes give, in their order, in the first; None in the others.

    Args:
        value: can be pickled.
    """
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if is_first() else None
    dist.gather_object(value, values)
    return values


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them; the others do not call `make`.

    Args:
        make: gives what can be pickled; if it fails, the others raise LostProcessError at the end of `joined`.
    """
    if world_size() == 1:
        return make()
    made: list[Any] = [make() if is_first() else None]
    dist.broadcast_object_list(made)
    return made[0]


def any_of_all(flags: Sequence[bool]) -> list[bool]:
    """Which of the flags, at least one, are set in any process."""
    if world_size() == 1:
        return list(flags)
    counts = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(counts)
    return (counts > 0).tolist()


def wait_for_all() -> None:
    """Returns once every process has come here."""
    any_of_all([False])  # gloo waits for nobody where there is nothing to exchange


def tells_of_failure() -> bool:
    """Whether this process, which is about to end, says why: the first to fail does, which takes the others along."""
    if _store is None:
        return True
    try:
        return _store.add(FAILED, 1) == 1
    except RuntimeError:  # the launcher is gone
        return os.environ["RANK"] == "0"
