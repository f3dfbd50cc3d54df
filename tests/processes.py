"""Several processes on this machine, as torchrun would start them, forked from the test."""

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = 180.0  # seconds for each


def random(*size: int, seed: int = 0) -> Tensor:
    """Normal numbers."""
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def share_of(whole: Tensor, rank: int, count: int) -> Tensor:
    """The rows of a process."""
    return whole[len(whole) * rank // count : len(whole) * (rank + 1) // count]


def launched(
    count: int, work: Callable[[int], Any], *, errors: bool = False, store: str | None = None, restarts: int = 0
) -> list[Any]:
    """What `work(rank)` gives in each of `count` processes; with `errors`, the exceptions that it ends with too.

    Nobody has joined yet: see `parallel.joined` and `parallel.connect`. None stands for a process that died. They meet
    in a file, `store`, or a new one; "tcp" is torchrun's way, which looks up names of machines and may wait for that.
    After `restarts` failures, processes are started with the store of the first.
    """
    # The launcher holds the store, as torchrun does, so that it outlives the processes.
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) if store == "tcp" else None
    where = server.port if server else store or os.path.join(tempfile.mkdtemp(), "store")
    fork = multiprocessing.get_context("fork")
    ends = [fork.Pipe(duplex=False) for _ in range(count)]
    processes = [
        fork.Process(
            target=_child,
            args=(work, rank, count, where, restarts, ends[rank][1]),
            daemon=True,
        )
        for rank in range(count)
    ]
    for process, (_, sender) in zip(processes, ends, strict=True):
        process.start()
        sender.close()
    answers = [_received(process, receiver) for process, (receiver, _) in zip(processes, ends, strict=True)]
    if not errors and (raised := [answer for answer in answers if isinstance(answer, BaseException)]):
        raise raised[0]
    return answers


def _received(process: Any, receiver: Any) -> Any:
    try:
        assert receiver.poll(TIMEOUT), "a process neither ended nor answered"
        return pickle.loads(receiver.recv_bytes())
    except EOFError:
        return None
    finally:
        process.join(TIMEOUT if receiver.closed else 5)
        process.kill()


def _child(work: Callable[[int], Any], rank: int, count: int, place: int | str, restarts: int, sender: Any) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(place), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "GLOO_SOCKET_IFNAME": "lo",  # the name of this machine need not be looked up
    }  # fmt: skip
    if isinstance(place, str):
        dist.rendezvous = lambda _: iter([(dist.FileStore(place, -1), rank, count)])  # type: ignore[assignment]
    try:
        answer = work(rank)
    except BaseException as error:  # for the test to look at
        error.add_note(traceback.format_exc())
        answer = error
    sender.send_bytes(pickle.dumps(answer))  # tensors by value: their memory ends with the process
    sender.close()
    os._exit(0)
