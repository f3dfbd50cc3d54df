"""Image files that could not be read as they should: named, so that nothing goes missing in silence."""

import warnings
from collections.abc import Sequence
from typing import Any

from parallel import gathered

__all__ = ["warn_of_broken_images"]

SHOWN = 3


def warn_of_broken_images(loader: Any, where: str) -> None:
    """Warns of the images that the loaders' latest pass left out, and of those that it read in part.

    Every process comes here; the first one warns for all.

    Args:
        loader: may have `skipped` and `truncated`, lists of paths.
        where: such as "training images".
    """
    passes = gathered((getattr(loader, "skipped", []), getattr(loader, "truncated", []))) or []
    if skipped := [path for paths, _ in passes for path in paths]:
        warnings.warn(f"{where} without {_first_of(skipped, 'unreadable images')}", stacklevel=3)
    if truncated := [path for _, paths in passes for path in paths]:
        what = _first_of(truncated, "image files that are cut short, each used as far as it goes")
        warnings.warn(f"{where} with {what}", stacklevel=3)


def _first_of(paths: Sequence[str], what: str) -> str:
    more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
    return f"{len(paths):,} {what}: {', '.join(sorted(paths)[:SHOWN])}{more}"
