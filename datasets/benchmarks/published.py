"""What is published about the size of each benchmark, to compare prepared lists with."""

from typing import NamedTuple

__all__ = ["BY_NAME", "Published", "Size", "compared"]


class Size(NamedTuple):
    """A number of images as it was published: exactly, or cut off to thousands (the paper's Table 8)."""

    least: int
    most: int

    def agrees(self, count: int) -> bool:
        """Whether a list of so many images can be the one that was meant."""
        return self.least <= count <= self.most

    def __str__(self) -> str:
        return f"{self.least:,}" if self.least == self.most else f"{self.least // 1000}K"


def compared(size: Size | None, count: int) -> str:
    """The published size and whether a list of `count` images agrees with it, for a table."""
    return "-" if size is None else f"{size} {'agrees' if size.agrees(count) else 'DIFFERS'}"


class Published(NamedTuple):
    """Images of each list, None where nothing is published, and labels."""

    train: Size
    test: Size
    test_zsl: Size | None
    seen: int
    unseen: int


def _exactly(count: int) -> Size:
    return Size(count, count)


def _thousands(count: int) -> Size:
    return Size(1000 * count, 1000 * count + 999)


BY_NAME = {  # DATASETS.NAMES -> Table 8, made exact by the released lists where they are public
    "COCO_ZS": Published(_exactly(44_909), _exactly(6_392), _exactly(2_729), 48, 17),
    "NUS_ZS": Published(_exactly(143_528), _thousands(59), _exactly(46_848), 925, 81),
    "RAP_OV": Published(_thousands(25), _exactly(8_317), None, 35, 16),
    "PA100K_OV": Published(_thousands(59), _exactly(10_000), None, 16, 10),
    "MULTISCENE_OV": Published(_thousands(24), _exactly(7_000), None, 20, 16),
    "MLRSNET_OV": Published(_thousands(11), _exactly(21_823), None, 40, 20),
}
