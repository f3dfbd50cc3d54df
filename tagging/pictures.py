"""Pictures in any form to the input of a method."""

import io
import os
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.records import MissingFileError
from datasets.worlds import is_reference
from tagging.portable import TaggerError

__all__ = ["Encoded", "Picture", "Preparation", "is_one"]


class Encoded(NamedTuple):
    """The bytes of an image file that lies in something else, such as an archive."""

    name: str  # for messages
    content: bytes


Picture = str | os.PathLike | Encoded | Image.Image | np.ndarray | Tensor


class Preparation(NamedTuple):
    """How pictures become tensors."""

    open: Callable[[str, str], Image.Image]  # path, folder -> RGB
    decode: Callable[[IO[bytes], str], Image.Image]  # content of a file, name for messages -> RGB
    transform: Callable[[Image.Image], Tensor]  # RGB -> (3, H, W), normalised

    def __call__(self, picture: Picture) -> Tensor:
        """The picture as a method takes it, (3, H, W).

        Args:
            picture: a path, or a reference such as `shapes:test/17`; the bytes of a file, `Encoded`; a PIL image; an
                array (H, W, 3) or (H, W) of bytes; a tensor (3, H, W) of bytes, or of fractions in [0, 1].

        Raises:
            DataError: if a file is missing or no picture.
            TaggerError: if an array or tensor is none of the above.
        """
        return self.transform(self.rgb(picture))

    def rgb(self, picture: Picture) -> Image.Image:
        """The picture at its own size."""
        if isinstance(picture, str | os.PathLike):
            path = os.fspath(picture)
            if not is_reference(path) and not os.path.isfile(path):  # lists may name files loosely, callers not
                raise MissingFileError(f"no picture {path}")
            return self.open(path, os.curdir)
        if isinstance(picture, Encoded):
            return self.decode(io.BytesIO(picture.content), picture.name)
        if isinstance(picture, Image.Image):
            return picture.convert("RGB")
        return Image.fromarray(_bytes(picture)).convert("RGB")


def is_one(pictures: Any) -> bool:
    """Whether this is one picture and not several."""
    if isinstance(pictures, np.ndarray | Tensor):
        return pictures.ndim <= 3
    return isinstance(pictures, str | os.PathLike | Encoded | Image.Image)


def _bytes(picture: Any) -> np.ndarray:
    """(H, W, 3) or (H, W) of bytes."""
    shape, kind = tuple(getattr(picture, "shape", ())), str(getattr(picture, "dtype", type(picture).__name__))
    expected = "an array (H, W, 3) or (H, W) of uint8, or a tensor (3, H, W) of uint8 or of fractions in [0, 1]"
    if isinstance(picture, Tensor) and picture.ndim == 3 and picture.shape[0] == 3:
        if (
            picture.is_floating_point()
            and bool(torch.isfinite(picture).all())
            and 0 <= picture.min() <= picture.max() <= 1
        ):
            picture = (255 * picture).round().to(torch.uint8)
        if picture.dtype == torch.uint8:
            return picture.permute(1, 2, 0).cpu().numpy()
    if (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.uint8
        and (picture.ndim == 2 or picture.shape[2:] == (3,))
    ):
        return picture
    raise TaggerError(f"no picture: {kind} {shape}; expected is {expected}")
