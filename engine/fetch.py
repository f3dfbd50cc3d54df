"""A number of the device for the host, which goes on meanwhile and waits for nothing that is queued behind it."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["fetched"]


def fetched(value: Tensor) -> Callable[[], float]:
    """Begins to bring a scalar to the host; calling the result waits for it, and gives it.

    On CUDA that is a wait for what was queued before, while the device works on what was queued since. Elsewhere the
    number is read when it is asked for.
    """
    if value.device.type != "cuda":
        return value.item
    number = value.detach().to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(value.device))

    def read() -> float:
        arrived.synchronize()
        return number.item()

    return read
