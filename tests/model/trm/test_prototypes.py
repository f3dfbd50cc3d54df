"""Memory banks against queues of plain Python, and similarities against plain cosines."""

from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import parallel
from model.trm.prototypes import MemoryBank, Seen, likeness, most_energetic
from tests.processes import launched


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pushes(sizes, labels=3, width=4):
    """Vectors of length 1 of random labels, so many in each push."""
    generator = torch.Generator().manual_seed(0)
    return [Seen(F.normalize(torch.randn(size, width, generator=generator), dim=-1),
                 torch.randint(labels, (size,), generator=generator)) for size in sizes]  # fmt: skip


def queues_after(seen, length, labels=3):
    queues = [deque(maxlen=length) for _ in range(labels)]
    for vectors, of in seen:
        for vector, label in zip(vectors, of.tolist(), strict=True):
            queues[label].append(vector)
    return queues


def held_of(bank, label):
    """The vectors of a full queue, as a set of rows."""
    return {tuple(row) for row in bank.vectors[label].tolist()}


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_bank_holds_what_queues_hold(length):
    bank, done = MemoryBank(labels=3, length=length, width=4), []
    for seen in pushes([3, 0, 1, 7, 30, 2, 5]):
        bank.push(seen)
        done.append(seen)
        queues = queues_after(done, length)
        assert bank.full.tolist() == [len(queue) == length for queue in queues]
        for label, queue in enumerate(queues):
            if bank.full[label]:
                assert held_of(bank, label) == {tuple(vector.tolist()) for vector in queue}
                torch.testing.assert_close(bank.means()[label], torch.stack(list(queue)).mean(0))


def test_what_is_held_is_a_copy_of_full_queues_with_their_labels():
    bank, seen = MemoryBank(labels=3, length=2, width=4), pushes([4])[0]
    bank.push(Seen(seen.vectors[:3], torch.tensor([2, 0, 2])))
    held = bank.held()
    assert held.labels.tolist() == [2, 2]
    assert torch.equal(held.vectors, seen.vectors[[0, 2]])
    bank.push(Seen(seen.vectors[3:], torch.tensor([2])))
    assert torch.equal(held.vectors, seen.vectors[[0, 2]])
    assert torch.equal(bank.held().vectors, seen.vectors[[3, 2]])


def test_nothing_is_held_before_a_queue_is_full():
    bank = MemoryBank(labels=3, length=2, width=4)
    bank.push(Seen(drawn(3, 4), torch.tensor([0, 1, 2])))
    assert bank.held().vectors.shape == (0, 4)
    assert bank.held().labels.shape == (0,)


def test_processes_hold_what_one_holds_to_the_bit():
    whole = pushes([5, 9])
    alone = MemoryBank(labels=3, length=4, width=4)
    for seen in whole:
        alone.push(seen)

    def work(rank):
        with parallel.joined():
            parallel.connect(torch.device("cpu"))
            bank = MemoryBank(labels=3, length=4, width=4)
            with parallel.as_one():
                for seen in whole:
                    bank.push(Seen(*(part[:2] if rank == 0 else part[2:] for part in seen)))
            return bank.state_dict()

    for state in launched(2, work):
        assert all(torch.equal(state[name], value) for name, value in alone.state_dict().items())


def test_the_most_energetic_positions_enter_image_by_image_the_highest_first():
    energies, features = drawn(2, 3, 6), drawn(2, 6, 4, seed=1)
    present = torch.tensor([[True, False, True], [False, False, True]])
    found = most_energetic(energies, features, present, count=2)
    expected = []
    for image, label in ((0, 0), (0, 2), (1, 2)):
        for position in np.argsort(-energies[image, label].numpy())[:2]:
            vector = features[image, position].numpy()
            expected.append(vector / np.linalg.norm(vector))
    assert found.labels.tolist() == [0, 0, 2, 2, 2, 2]
    np.testing.assert_allclose(found.vectors, np.stack(expected), rtol=1e-6)


def test_nothing_enters_where_no_label_is_known_to_be_present():
    found = most_energetic(drawn(2, 3, 6), drawn(2, 6, 4), torch.zeros(2, 3, dtype=torch.bool), count=2)
    assert [len(part) for part in found] == [0, 0]


def test_likeness_is_the_mean_cosine_with_all_prototypes_of_a_label():
    regions, prototypes = 5 * drawn(2, 3, 4), F.normalize(drawn(3, 7, 4, seed=1), dim=-1)
    found = likeness(regions, prototypes.mean(1))
    for image in range(2):
        for label in range(3):
            region = regions[image, label].double().numpy()
            cosines = [region @ v / np.linalg.norm(region) for v in prototypes[label].double().numpy()]
            assert found[image, label].item() == pytest.approx(np.mean(cosines), rel=1e-4, abs=1e-6)
