"""Image files that could not be read as they should: named, so that nothing goes missing in silence."""

import warnings
from collections.abc import Sequence
from typing import Any

__all__ = ["warn_of_broken_images"]

SHOWN = 3


def warn_of_broken_images(loader: Any, where: str) -> None:
    """Warns of the images that the loader's latest pass left out, and of those that it read in part.

    Args:
        loader: may have `skipped` and `truncated`, lists of paths.
        where: such as "training images".
    """
    if skipped := getattr(loader, "skipped", []):
        warnings.warn(f"{where} without {_first_of(skipped, 'unreadable images')}", stacklevel=3)
    if truncated := getattr(loader, "truncated", []):
        what = _first_of(truncated, "image files that are cut short, each used as far as it goes")
        warnings.warn(f"{where} with {what}", stacklevel=3)


def _first_of(paths: Sequence[str], what: str) -> str:
    more = f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else ""
    return f"{len(paths):,} {what}: {', '.join(sorted(paths)[:SHOWN])}{more}"
