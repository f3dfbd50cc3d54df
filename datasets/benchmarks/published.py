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
    """Images of each list, None where nothing is published or there is none, and labels."""

    train: Size
    test: Size
    test_zsl: Size | None
    seen: int
    unseen: int
    val: Size | None = None


def _exactly(count: int) -> Size:
    return Size(count, count)


def _thousands(count: int) -> Size:
    return Size(1000 * count, 1000 * count + 999)


def _all_seen(train: int, test: int, labels: int, val: int = 0) -> Published:
    return Published(_exactly(train), _exactly(test), None, labels, 0, _exactly(val) if val else None)


# DATASETS.NAMES -> Table 8, made exact by the released lists where they are public; then protocols of missing labels,
# of which papers often count the labelled images only, 82,081 and 40,137 of COCO.
BY_NAME = {
    "COCO_ZS": Published(_exactly(44_909), _exactly(6_392), _exactly(2_729), 48, 17),
    "NUS_ZS": Published(_exactly(143_528), _thousands(59), _exactly(46_848), 925, 81),
    "RAP_OV": Published(_thousands(25), _exactly(8_317), None, 35, 16),
    "PA100K_OV": Published(_thousands(59), _exactly(10_000), None, 16, 10),
    "MULTISCENE_OV": Published(_thousands(24), _exactly(7_000), None, 20, 16),
    "MLRSNET_OV": Published(_thousands(11), _exactly(21_823), None, 40, 20),
    "COCO_PARTIAL": _all_seen(82_783, 40_504, 80),
    "VOC2007_PARTIAL": _all_seen(5_011, 4_952, 20),
    "VG200_PARTIAL": _all_seen(82_904, 10_000, 200),
    "COCO_LARGELOSS": _all_seen(65_665, 40_137, 80, 16_416),
    "VOC2012_LARGELOSS": _all_seen(4_574, 5_823, 20, 1_143),
    "NUS_LARGELOSS": _all_seen(120_000, 60_260, 81, 30_000),
    "CUB_LARGELOSS": _all_seen(4_795, 5_794, 312, 1_199),
    "COCO_SPLC": _all_seen(82_081, 40_137, 80),
    "VOC2012_SPLC": _all_seen(5_717, 5_823, 20),
    "NUS_SPLC": _all_seen(119_103, 50_720, 81),
    "CUB_SPLC": _all_seen(5_994, 5_794, 312),
}
