"""Several processes that train and test one model as one process would; torchrun starts them (docs/scaling.md).

`group` is who they are and what they tell each other, `reductions` is what couples the images of a batch whose shares
lie in several processes. Without torchrun there is one process, and everything here gives back what it was given.
"""

from parallel.batch_norm import BatchNorm2d
from parallel.group import (
    LostProcessError,
    any_of_all,
    connect,
    from_first,
    gathered,
    is_first,
    joined,
    local_rank,
    rank,
    tells_of_failure,
    wait_for_all,
    world_size,
)
from parallel.reductions import anywhere, as_one, least, logsumexp, mean, own_share, rows_of_all, summed

__all__ = [
    "BatchNorm2d",
    "LostProcessError",
    "any_of_all",
    "anywhere",
    "as_one",
    "connect",
    "from_first",
    "gathered",
    "is_first",
    "joined",
    "least",
    "local_rank",
    "logsumexp",
    "mean",
    "own_share",
    "rank",
    "rows_of_all",
    "summed",
    "tells_of_failure",
    "wait_for_all",
    "world_size",
]
