"""Where results come from: enough to repeat them, and to tell whether two of them may be compared."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.run import environment

__all__ = ["file_identity", "provenance"]


def provenance(
    *, config: Mapping[str, Any], checkpoint: Mapping[str, Any] | None, lists: Mapping[str, Any], seen: Sequence[str],
    unseen: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """What is written beside results; plain values only.

    Args:
        config: value by key, such as SOLVER.SEED.
        checkpoint: what `file_identity` gives and where its training stood; None: nothing was trained.
        lists: counts and fingerprint of the images and labels, by protocol.
        seen: labels of the training.
        unseen: labels that it was not shown.
    """
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "checkpoint": None if checkpoint is None else dict(checkpoint),
        "labels": {"seen": len(seen), "unseen": len(unseen)}, "lists": dict(lists), "config": dict(config),
        "environment": environment(),
    }  # fmt: skip


def file_identity(path: str | Path) -> dict[str, str]:
    """Name and SHA-256 of a file, with the folder that it lies in."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"run": Path(path).resolve().parent.name, "file": Path(path).name, "sha256": digest}
