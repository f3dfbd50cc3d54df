import hashlib

import open_clip
import pytest

from datasets.emoji.names import CODES, LABELS, SEEN, UNSEEN


def test_seen_and_unseen_labels_are_925_and_81_and_disjoint():
    assert (len(SEEN), len(UNSEEN), len(LABELS)) == (925, 81, 1006)
    assert set(SEEN) | set(UNSEEN) == set(LABELS) == set(CODES)


def test_the_labels_are_those_that_results_were_computed_on():
    text = "\n".join((*SEEN, "", *UNSEEN))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "76147cbc22b39213"


def test_every_label_has_a_drawing_of_its_own():
    assert len(set(CODES.values())) == len(LABELS)


@pytest.mark.parametrize("label", ["rabbit", "ice skate", "pizza", "volcano", "tractor", "sandwich"])
def test_concepts_of_everyday_life_are_among_them(label):
    assert label in LABELS


def test_names_are_words_that_the_tokenizer_of_clip_reads_without_loss():
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    for label in LABELS:
        ids = [token for token in tokenizer(label)[0].tolist() if token][1:-1]
        assert tokenizer.decode(ids).replace(" ", "") == label.lower().replace(" ", "")
        assert len(ids) <= 12


def test_no_two_names_are_read_as_the_same_tokens():
    assert len({tuple(row) for row in open_clip.tokenize(list(LABELS)).tolist()}) == len(LABELS)
