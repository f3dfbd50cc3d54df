"""Some pictures with what a tagger finds in them and where, as one image for a dashboard."""

import io
from collections.abc import Sequence

from PIL import Image

from datasets.records import DataError
from tagging.figures import Shown, found_labels
from tagging.tagger import Tagger
from tagging.tags import Tags

__all__ = ["panel"]

PICTURES, LABELS = 6, 6  # shown; of each at most


def panel(tagger: Tagger, images: Sequence[str], folder: str) -> Image.Image | None:
    """A row for each of the first pictures of a list: itself, and maps of the labels that reach their threshold.

    Args:
        tagger: calibrated.
        images: names as in a list of a data set.
        folder: of the images.

    Returns:
        None if none of them can be read; those that cannot are left out.
    """
    rows = []
    for name in images[:PICTURES]:
        try:
            picture = tagger.preparation.open(name, folder)
        except DataError:
            continue
        tags = tagger.tag(picture, threshold="best", top_k=LABELS, maps=True)
        assert isinstance(tags, Tags)  # one picture was asked for
        assert tags.maps is not None
        titles = [f"{label} {p:.2f}" for label, p in zip(tags.labels, tags.probabilities, strict=True)]
        rows.append(Shown(picture, name, titles, tags.maps))
    if not rows:
        return None
    file = io.BytesIO()
    found_labels(rows, columns=LABELS).savefig(file, format="png", dpi=100)
    return Image.open(file)
