"""What methods ask of a frozen image tower, whichever it is: the ViT of `clip.image` or the ResNet of `clip.resnet`.

B images, N regions, W the tower's own width, D joint width.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["DenseFeatures", "FeatureMap", "Trunk"]


class DenseFeatures(NamedTuple):
    """Images and their regions in the joint space, not normalised."""

    image: Tensor  # (B, D), the global feature
    regions: Tensor  # (B, N, D), row by row


class FeatureMap(NamedTuple):
    """Images, and their regions as the tower has them."""

    image: Tensor  # (B, D), the global feature, not normalised
    map: Tensor  # (B, W, rows, columns)


class Trunk(nn.Module, ABC):
    """A frozen image tower; what these methods return keeps no graph.

    Images are (B, 3, H, W), normalised, their sides multiples of `clip.regions.region_size`.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """W."""

    @abstractmethod
    def global_features(self, images: Tensor) -> Tensor:
        """The CLIP's own image features (B, D), not normalised."""

    @abstractmethod
    def dense_features(self, images: Tensor) -> DenseFeatures:
        """Features of the images and of their regions, each region read without attention to the others at the end."""

    @abstractmethod
    def regions_with_mean(self, images: Tensor) -> Tensor:
        """The same regions behind one more, (B, 1 + N, D): the mean of a ResNet's map, the global feature of a ViT."""

    @abstractmethod
    def feature_map(self, images: Tensor) -> FeatureMap:
        """The last map of the tower, in front of its projection to the joint space."""
