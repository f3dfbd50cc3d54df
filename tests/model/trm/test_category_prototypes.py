"""What visual and text prototypes say together."""

import pytest
import torch
import torch.nn.functional as F

from model.trm.category_prototypes import CategoryPrototypes, undecided
from model.trm.prototypes import Seen


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(kinds=("visual", "text"), length=2):
    return CategoryPrototypes(labels=3, width=4, length=length, count=2, momentum=0.9, kinds=kinds)


def cosines(regions, prototypes):
    return F.cosine_similarity(regions, prototypes.expand_as(regions), dim=-1)


def test_similarities_are_those_with_the_bank_and_with_the_texts():
    prototypes, regions, texts = made(), drawn(5, 3, 4), 3 * drawn(3, 4, seed=1)
    vectors = F.normalize(drawn(6, 4, seed=2), dim=-1)
    prototypes.bank.push(Seen(vectors, torch.tensor([0, 0, 1, 1, 2, 2])))
    found = prototypes.alike(regions, texts)
    torch.testing.assert_close(found["text"], cosines(regions, texts))
    pair = [cosines(regions, vectors[k::2]) for k in range(2)]
    torch.testing.assert_close(found["visual"], (pair[0] + pair[1]) / 2)


def test_texts_of_the_first_stage_stand_still_once_they_are_fixed():
    prototypes, regions, texts = made(), drawn(5, 3, 4), drawn(3, 4, seed=1)
    prototypes.fix_texts(2 * texts)
    found = prototypes.alike(regions, drawn(3, 4, seed=5))
    torch.testing.assert_close(found["text"], cosines(regions, texts))


def taught(kinds=("visual", "text"), full=True):
    """Prototypes whose two labels of three are known well, each thing by both kinds of similarity."""
    prototypes = made(kinds)
    if full:
        prototypes.bank.entered.fill_(2)
    targets = torch.tensor([[1.0, 1, -1], [0, 0, -1]])
    likenesses = {"visual": torch.tensor([[0.8, 0.6, 0], [0.2, 0.4, 0]]),
                  "text": torch.tensor([[0.7, 0.5, 0], [0.1, 0.3, 0]])}  # fmt: skip
    prototypes.learn(likenesses, targets)
    return prototypes


NEW = {"visual": torch.tensor([[0.9, 0.9, 0.9], [0.1, 0.1, 0.1], [0.9, 0.1, 0.9], [0.5, 0.5, 0.5]]),
       "text": torch.tensor([[0.9, 0.9, 0.9], [0.0, 0.0, 0.0], [0.0, 0.0, 0.9], [0.9, 0.0, 0.5]])}  # fmt: skip


@pytest.mark.parametrize(("kinds", "expected"), [
    (("visual", "text"), [[1, 1, -1], [0, 0, -1], [-1, 0, -1], [-1, -1, -1]]),
    (("visual",), [[1, 1, -1], [0, 0, -1], [1, 0, -1], [-1, -1, -1]]),
    (("text",), [[1, 1, -1], [0, 0, -1], [0, 0, -1], [1, 0, -1]]),
])  # fmt: skip
def test_pseudo_labels_are_what_the_chosen_kinds_agree_on(kinds, expected):
    labels, judged = taught(kinds).judge(NEW)
    assert labels.tolist() == expected
    assert judged.tolist() == [True, True, False]


@pytest.mark.parametrize(("kinds", "judged"), [(("visual", "text"), False), (("visual",), False), (("text",), True)])
def test_a_queue_that_is_not_full_stops_visual_prototypes_alone(kinds, judged):
    prototypes = taught(kinds, full=False)
    assert prototypes.judge(NEW).judged.tolist() == [judged, judged, False]
    assert not prototypes.thresholds["visual"].defined.any()


def test_what_is_remembered_is_of_labels_that_are_known_to_be_present():
    prototypes, energies, features = made(), drawn(2, 3, 5), drawn(2, 5, 4, seed=1)
    prototypes.remember(energies, features, torch.tensor([[1.0, 0, -1], [1, -1, 0]]))
    assert prototypes.bank.entered.tolist() == [4, 0, 0]
    best = energies[1, 0].topk(2).indices
    torch.testing.assert_close(prototypes.bank.held().vectors, F.normalize(features[1, best], dim=-1))


def test_nothing_of_it_keeps_a_graph():
    prototypes, regions = made(), drawn(2, 3, 4).requires_grad_()
    found = prototypes.alike(regions, drawn(3, 4).requires_grad_())
    prototypes.learn(found, torch.ones(2, 3))
    prototypes.remember(drawn(2, 3, 5).requires_grad_(), drawn(2, 5, 4), torch.ones(2, 3))
    assert not any(tensor.requires_grad for tensor in (*found.values(), *prototypes.buffers()))


def test_without_kinds_thresholds_learn_all_the_same():
    prototypes = taught(())
    assert prototypes.ordered.tolist() == [True, True, False]


def test_nothing_is_decided_before_there_are_pseudo_labels():
    labels, judged = undecided(torch.tensor([[1.0, 0, -1]]))
    assert labels.tolist() == [[-1, -1, -1]]
    assert not judged.any()
