"""Orders drawn by a seed that stay the same in every version of every library."""

import hashlib
from collections.abc import Iterable

__all__ = ["shuffled"]


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in the order of SHA-256 of "seed:name".

    Whether a name comes before another depends on nothing but the two and the seed: not on the order in which they
    come, not on the rest, so that images added later change a random split little.
    """
    return sorted(names, key=lambda name: hashlib.sha256(_bytes(f"{seed}:{name}")).digest())


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")  # names of files need not be text
