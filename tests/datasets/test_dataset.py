import numpy as np
import pytest
import torch
from PIL import Image

from datasets.dataset import MultiLabelDataset, Unreadable
from datasets.records import Records


def noisy(image):
    """A stand-in for a random transform."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() + torch.rand(3, 1, 1)


@pytest.fixture
def dataset(tmp_path):
    for i in range(3):
        Image.new("RGB", (4, 5), (i, 0, 0)).save(tmp_path / f"{i}.png")
    labels = (("b",), ("a", "c"), ())
    records = Records(("0.png", "1.png", "2.png", "gone.png"), (*labels, ("a",)), ("a", "b", "c"), "here")
    return MultiLabelDataset(records, ["c", "a"], noisy, str(tmp_path), seed=3)


def test_a_sample_holds_image_targets_path_and_index(dataset):
    sample = dataset[1, 1]
    assert (sample.path, sample.index, sample.image.shape) == ("1.png", 1, (3, 5, 4))
    assert torch.equal(sample.targets, torch.tensor([1.0, 1.0]))


def test_targets_follow_the_order_of_the_names(dataset):
    assert dataset.targets.tolist() == [[0, 0], [1, 1], [0, 0], [0, 1]]


def test_a_sample_is_a_function_of_seed_epoch_and_index(dataset):
    first = dataset[2, 1].image
    torch.rand(7)
    assert torch.equal(dataset[2, 1].image, first)


@pytest.mark.parametrize("other", [(3, 1), (2, 2)])
def test_another_epoch_or_index_is_augmented_otherwise(dataset, other):
    assert not torch.equal(dataset[other].image % 1, dataset[2, 1].image % 1)


def test_another_seed_augments_otherwise(dataset, tmp_path):
    other = MultiLabelDataset(dataset.records, dataset.names, noisy, str(tmp_path), seed=4)
    assert not torch.equal(other[2, 1].image, dataset[2, 1].image)


def test_augmenting_leaves_torchs_random_state_as_it_was(dataset):
    before = torch.get_rng_state()
    dataset[1, 1]
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_an_index_is_enough(dataset, tmp_path):
    plain = MultiLabelDataset(dataset.records, ["a"], lambda image: torch.zeros(3, *image.size), str(tmp_path))
    assert plain[1].index == 1


def test_an_image_that_cannot_be_read_is_a_value_with_the_reason(dataset):
    missing = dataset[1, 3]
    assert isinstance(missing, Unreadable)
    assert missing.path == "gone.png"
    assert "gone.png" in missing.message


def test_of_a_truncated_image_what_is_there_is_used_if_that_is_wanted(dataset, tmp_path):
    whole = dataset[1, 1]
    path = tmp_path / "1.png"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert isinstance(dataset[1, 1], Unreadable)
    reading = MultiLabelDataset(dataset.records, ["a"], noisy, str(tmp_path), seed=3, read_truncated=True)
    assert (whole.whole, reading[1, 0].whole, reading[1, 1].whole) == (True, True, False)
    assert reading[1, 1].image.shape == (3, 64, 64)
    assert isinstance(reading[1, 3], Unreadable)


def test_the_length_is_the_number_of_records(dataset):
    assert len(dataset) == 4
