import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import loader
from datasets.batched import BatchedAugmentation
from datasets.dataset import MultiLabelDataset
from datasets.loader import EpochSampler, train_loader
from datasets.records import DataError, Records
from datasets.transforms import in_workers, resized_only, training_steps

STEPS = training_steps(
    size=(8, 8), flip=0.5, erase=0.5, padding=1, aug_prob=0.5, crop=0.1, blur=0.2, contrast=(0.7, 1.5), affine=0.1,
    rotation=10.0, noise=0.02, multiply=(0.9, 1.1), per_channel=0.2, mean=(0.5,) * 3, std=(0.5,) * 3,
)  # fmt: skip
TRANSFORM = in_workers(STEPS)


@pytest.fixture
def dataset(tmp_path):
    def dataset(count=11, broken=(), seed=5, skip_broken=False, read_truncated=False, augment=None):
        rng = np.random.default_rng(0)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (9, 10, 3), np.uint8)).save(tmp_path / f"{i}.png")
        for i in broken:
            (tmp_path / f"{i}.png").write_bytes(b"no image")
        labels = tuple(("ab"[i % 2],) for i in range(count))
        records = Records(tuple(f"{i}.png" for i in range(count)), labels, ("a", "b"), "list.json")
        how = {"skip_broken": skip_broken, "read_truncated": read_truncated, "augment": augment}
        transform = TRANSFORM if augment is None else resized_only(STEPS)
        return MultiLabelDataset(records, "ab", transform, str(tmp_path), seed=seed, **how)

    return dataset


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.paths == other.paths
        assert all(torch.equal(getattr(one, f), getattr(other, f)) for f in ("images", "targets", "indices"))


def test_batches_hold_images_targets_paths_and_indices(dataset):
    batch = next(iter(train_loader(dataset(), 4, 0, seed=0, reshuffle=True)))
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, 8, 8), torch.float32)
    assert (batch.targets.dtype, batch.indices.dtype) == (torch.float32, torch.int64)
    assert batch.paths == [f"{i}.png" for i in batch.indices.tolist()]
    assert batch.targets.tolist() == [[1 - i % 2, i % 2] for i in batch.indices.tolist()]


def test_two_workers_give_the_batches_of_none_and_follow_the_epoch(dataset):
    alone, helped = (train_loader(dataset(), 4, workers, seed=0, reshuffle=True) for workers in (0, 2))
    for epoch in (1, 2):  # the second time to the same worker processes
        alone.set_position(epoch)
        helped.set_position(epoch)
        assert_same(list(alone), list(helped))


def test_a_resumed_epoch_goes_on_with_identical_batches(dataset):
    whole = train_loader(dataset(), 3, 0, seed=0, reshuffle=True)
    whole.set_position(2)
    batches = list(whole)
    resumed = train_loader(dataset(), 3, 0, seed=0, reshuffle=True)
    resumed.set_position(2, first_batch=1)
    assert_same(list(resumed), batches[1:])


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_that_is_augmented_later_is_a_function_of_seed_epoch_and_index_too(dataset, size):
    augment = BatchedAugmentation(STEPS)
    alone, helped = (
        train_loader(dataset(augment=augment), batch, workers, seed=0, reshuffle=True)
        for batch, workers in ((4, 0), (size, 2))
    )
    images = []
    for batches in (alone, helped):
        batches.set_position(2, first_batch=0)
        found = {}
        for batch in batches:
            assert batch.images.dtype == torch.uint8
            found |= dict(zip(batch.paths, augment(batch.images, batch.plan), strict=True))
        images.append(found)
    shared = images[0].keys() & images[1].keys()  # the last images of an epoch are too few for a batch
    assert len(shared) >= 8
    assert all(torch.equal(images[0][path], images[1][path]) for path in shared)
    assert len({tuple(image.flatten().tolist()) for image in images[0].values()}) == 8


def test_an_epoch_can_be_repeated(dataset):
    batches = train_loader(dataset(), 4, 0, seed=0, reshuffle=True)
    assert_same(list(batches), list(batches))


@pytest.mark.parametrize(("first", "left"), [(0, 3), (2, 1), (3, 0), (9, 0)])
def test_the_length_is_what_is_left_of_the_epoch(dataset, first, left):
    batches = train_loader(dataset(), 3, 0, seed=0, reshuffle=True)
    batches.set_position(1, first)
    assert len(batches) == left == len(list(batches))


def test_loading_leaves_torchs_random_state_as_it_was(dataset):
    before = torch.get_rng_state()
    list(train_loader(dataset(), 4, 0, seed=0, reshuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


def order(sampler, epoch):
    sampler.epoch = epoch
    return [index for batch in sampler for _, index in batch]


def test_an_epoch_takes_every_image_at_most_once_in_full_batches():
    batches = list(EpochSampler(11, 4, seed=0, reshuffle=True))
    assert [len(batch) for batch in batches] == [4, 4]
    assert len({index for batch in batches for _, index in batch} & set(range(11))) == 8


def test_reshuffling_gives_every_epoch_another_order():
    sampler = EpochSampler(50, 5, seed=0, reshuffle=True)
    assert len({tuple(order(sampler, epoch)) for epoch in range(4)}) == 4


def test_without_reshuffling_every_epoch_has_the_order_of_epoch_0():
    sampler = EpochSampler(50, 5, seed=0, reshuffle=False)
    assert order(sampler, 3) == order(sampler, 0) != sorted(order(sampler, 0))


def test_without_reshuffling_the_items_still_carry_their_epoch():
    sampler = EpochSampler(4, 2, seed=0, reshuffle=False)
    sampler.epoch = 3
    assert {epoch for batch in sampler for epoch, _ in batch} == {3}


def test_another_seed_gives_another_order():
    assert order(EpochSampler(50, 5, seed=0, reshuffle=True), 1) != order(
        EpochSampler(50, 5, seed=1, reshuffle=True), 1
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_training_image_stops_with_one_line_that_names_it(dataset, workers, tmp_path):
    message = ""
    try:  # pytest.raises would keep the workers alive in a reference cycle
        list(train_loader(dataset(broken=[3]), 11, workers, seed=0, reshuffle=True))
    except DataError as error:
        message = str(error)
    assert message.startswith(f"cannot read the image {tmp_path}/3.png: ")
    assert "\n" not in message


def test_all_images_are_tested_in_order_and_the_last_batch_may_be_smaller(dataset):
    batches = list(loader.test_loader(dataset(), 4, 0))
    assert [index for batch in batches for index in batch.indices.tolist()] == list(range(11))
    assert [len(batch.images) for batch in batches] == [4, 4, 3]


@pytest.mark.parametrize("share", [loader.WHOLE, loader.Share(1, 2)])
def test_training_images_can_be_had_once_in_their_order(dataset, share):
    training = train_loader(dataset(), 4, 0, seed=0, reshuffle=True, share=share)
    assert [batch.indices.tolist() for batch in training.once()] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_two_workers_test_the_batches_of_none(dataset):
    assert_same(list(loader.test_loader(dataset(), 4, 0)), list(loader.test_loader(dataset(), 4, 2)))


def test_a_broken_test_image_stops_by_default(dataset):
    with pytest.raises(DataError, match=r"3\.png"):
        list(loader.test_loader(dataset(broken=[3]), 4, 0))


def test_broken_test_images_are_left_out_and_named_if_asked(dataset):
    batches = loader.test_loader(dataset(broken=[0, 1, 2, 3, 9], skip_broken=True), 4, 0)
    found = [batch.indices.tolist() for batch in batches]
    assert found == [[4, 5, 6, 7], [8, 10]]
    assert batches.skipped == ["0.png", "1.png", "2.png", "3.png", "9.png"]


def test_every_pass_counts_what_it_skips_anew(dataset):
    batches = loader.test_loader(dataset(broken=[1], skip_broken=True), 4, 0)
    list(batches)
    list(batches)
    assert batches.skipped == ["1.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_truncated_images_stay_in_the_batch_and_are_named_in_every_pass(dataset, tmp_path, workers):
    made = dataset(read_truncated=True)
    for name in ("4.png", "9.png"):
        Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    batches = loader.test_loader(made, 4, workers)
    for _ in range(2):
        assert [len(batch.images) for batch in batches] == [4, 4, 3]
        assert batches.truncated == ["4.png", "9.png"]
    assert batches.skipped == []


def test_nothing_readable_is_an_error_even_if_broken_images_are_skipped(dataset):
    batches = loader.test_loader(dataset(3, broken=[0, 1, 2], skip_broken=True), 2, 0)
    with pytest.raises(DataError, match="none of the 3 images"):
        list(batches)


@pytest.mark.parametrize(
    ("count", "batch", "workers", "seed", "said"),
    [
        (3, 4, 0, 0, r"list\.json: 3 training images.*SOLVER\.IMS_PER_BATCH is 4"),
        (0, 4, 0, 0, "0 training images"),
        (3, 0, 0, 0, r"SOLVER\.IMS_PER_BATCH is 0"),
        (3, 1, -1, 0, r"DATALOADER\.NUM_WORKERS is -1"),
        (3, 1, 0, -2, r"SOLVER\.SEED is -2"),
    ],
)
def test_training_that_cannot_work_is_an_error(dataset, count, batch, workers, seed, said):
    with pytest.raises(DataError, match=said):
        train_loader(dataset(count), batch, workers, seed=seed, reshuffle=True)


@pytest.mark.parametrize(
    ("count", "batch", "said"), [(0, 4, r"list\.json: no image"), (3, 0, r"TEST\.IMS_PER_BATCH is 0")]
)
def test_testing_that_cannot_work_is_an_error(dataset, count, batch, said):
    with pytest.raises(DataError, match=said):
        loader.test_loader(dataset(count), batch, 0)


def test_there_are_no_more_workers_than_cores(dataset):
    assert loader.test_loader(dataset(), 4, 10_000).batches.num_workers <= os.cpu_count()


def test_workers_are_capped_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert loader.cap(8) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_say_where_targets_are_known(dataset, workers):
    made = dataset()
    unknown = tuple(("b",) if i == 1 else () for i in range(11))
    masked = MultiLabelDataset(made.records._replace(unknown=unknown), "ab", made.transform, made.root, seed=1)
    first, *_ = loader.test_loader(masked, 4, workers)
    assert first.known.tolist() == [[True, True], [True, False], [True, True], [True, True]]
    assert next(iter(loader.test_loader(made, 4, workers))).known is None


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals here")
def test_processes_that_read_outlive_the_signals_that_schedulers_and_launchers_send(monkeypatch):
    monkeypatch.setattr(loader, "SPARED", 1)
    process = os.fork()
    if process == 0:
        loader._undisturbed(0)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        signal.pause()  # hangs
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGALRM  # and not SIGTERM
