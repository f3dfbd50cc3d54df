"""Images of one protocol among those of another."""

import pytest
import torch

from configs import load_config
from datasets import build_test
from datasets.dataset import MultiLabelDataset
from datasets.loader import Batch
from datasets.parts import part_of
from datasets.records import Records
from datasets.splits import restrict

NAMES = ("cat", "dog", "kite")
PATHS = ("a.png", "b.png", "c.png", "d.png")
LABELS = (("cat",), ("kite", "dog"), (), ("kite",))


def records(paths=PATHS, labels=LABELS):
    return Records(tuple(paths), tuple(labels), NAMES, "list.json")


def dataset(records, names=NAMES):
    return MultiLabelDataset(records, names, transform=torch.nn.Identity(), root="")


def batch(indices):
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 1, 1)[indices]
    return Batch(
        images, dataset(records()).targets[indices].float(), [PATHS[i] for i in indices], torch.tensor(indices)
    )


def test_rows_of_a_batch_are_those_of_its_images_with_the_targets_of_the_part():
    part = part_of(dataset(restrict(records(), ("kite",), drop_empty=True), ("kite",)), dataset(records()), "GZSL")
    rows, mine = part.of(batch([3, 0, 1]))
    assert (part.whole, rows.tolist(), mine.paths, mine.indices.tolist()) == (
        "GZSL",
        [0, 2],
        ["d.png", "b.png"],
        [1, 0],
    )
    assert mine.targets.tolist() == [[1.0], [1.0]]
    assert mine.images[:, 0, 0, 0].tolist() == [3.0, 1.0]


def test_the_part_has_targets_of_its_own_list():
    other = dataset(records(("b.png",), (("cat",),)))
    _, mine = part_of(other, dataset(records()), "GZSL").of(batch([1]))
    assert mine.targets.tolist() == [[1.0, 0.0, 0.0]]


def test_of_a_batch_without_such_images_nothing_is_left():
    part = part_of(dataset(records(("b.png",), (("cat",),))), dataset(records()), "GZSL")
    rows, mine = part.of(batch([0, 2]))
    assert (len(rows), len(mine.images), mine.paths) == (0, 0, [])


def test_images_of_which_one_is_not_among_the_others_are_no_part():
    other = dataset(records(("a.png", "e.png"), ((), ())))
    assert part_of(other, dataset(records()), "GZSL") is None


@pytest.mark.parametrize(("stop", "seen_once"), [("image", True), ("batch", False)])
def test_images_are_seen_once_for_both_protocols_unless_they_wait_for_their_batch(stop, seen_once):
    protocols = build_test(load_config("configs/shapes.yml", ["MODEL.OT_STOP", stop]), "test").protocols
    assert (protocols["ZSL"].part is not None) == seen_once
    assert protocols["GZSL"].part is None
