"""Trained words of label texts against the official code of MKT, and where they stand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import AdamW

from clip.load import load_clip
from clip.text import TextEncoder
from loss import normalised_ranking_loss, rankable
from model.compared.mkt import transfer_scores
from model.compared.template_words import TemplateWords
from tools.check_parity import Reference, build_clip, read

DATA = Path(__file__).parents[2] / "data"
RELEASE = read(DATA / "release_mkt.npz")
LIMIT = 1e-4  # of ||ours - theirs|| / ||theirs||
SCENE = "There is a {} in the scene"
TABLE = "stage2/param/token_embedding"


def tensor(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key, rows=...):
    expected = tensor(key)[rows]
    return ((found.detach() - expected).norm() / expected.norm()).item()


def rows_of(ids, key):
    """Which rows of a list of token ids in the file belong to some ids."""
    return [RELEASE[key].tolist().index(i) for i in ids]


@pytest.fixture(scope="module")
def tokenize():
    return load_clip("ViT-tiny-8", "random").tokenize


@pytest.fixture(scope="module")
def release(tokenize):
    """The file's labels and the text tower of the small CLIP with the file's own token embeddings."""
    file = read(DATA / "release_open.npz")
    names = [*file["classes.seen"].tolist(), *file["classes.unseen"].tolist()]
    table = {f"clip/token_embedding.{part}": RELEASE[f"{TABLE}.{part}"] for part in ("ids", "rows")}
    return names, TextEncoder(build_clip(Reference({**file, **table})), tokenize, template=SCENE, prompted=(0,))


def loss_of(labels):
    local, overall = transfer_scores(tensor("stage2/in/regions"), tensor("stage2/in/global_features"), labels, top_k=16)
    signs = RELEASE["stage2/in/targets"]
    targets = torch.from_numpy(np.select([signs == 1, signs == -1], [1, 0], -1))
    kept = rankable(targets)
    scores = (local + overall) / 2
    return scores, normalised_ranking_loss(scores[kept], targets[kept])


def test_the_texts_are_those_of_the_official_code(release):
    names, text = release
    assert text.tokens(names).tolist() == RELEASE["stage2/in/tokens"].tolist()
    places = TemplateWords(text).places(text, names)
    lengths = [(row[:end] < 0).sum() for row, end in zip(places, text.tokens(names).argmax(1), strict=True)]
    assert lengths == RELEASE["stage2/in/name_length"].tolist()


def test_features_scores_loss_and_gradient_are_those_of_the_official_code(release):
    names, text = release
    words = TemplateWords(text)
    labels = words(text, names)
    scores, loss = loss_of(labels)
    loss.backward()
    assert error(labels, "stage2/out/text_features") < LIMIT
    assert error(scores, "stage2/out/score") < LIMIT
    assert error(loss, "stage2/out/loss") < LIMIT
    assert words.ids == RELEASE["stage2/grad/token_embedding.ids"].tolist()
    assert error(words.rows.grad, "stage2/grad/token_embedding.rows") < LIMIT


def test_a_training_is_that_of_the_official_code(release):
    names, text = release
    words = TemplateWords(text)
    optimizer, losses = AdamW(words.parameters(), weight_decay=0.05), []
    for rate in RELEASE["stage2/lr"]:
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        _, loss = loss_of(words(text, names))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(RELEASE["stage2/loss"].tolist(), rel=LIMIT)
    assert error(words(text, names), "stage2/out/text_features.after") < LIMIT
    same = rows_of(words.ids, f"{TABLE}.ids")
    assert error(words.rows, "stage2/out/token_embedding.rows.after", same) < LIMIT


def encoder(towers, template=SCENE, **texts):
    return TextEncoder(towers.text, towers.tokenize, template=template, prompted=(0,), texts=texts)


@pytest.mark.parametrize("template", [SCENE, "{}", "{} at sea.", "a photo of {}s"])
def test_untrained_words_leave_the_frozen_features(towers, template):
    text, names = encoder(towers, template), ["dog", "traffic light", "zyzzyva"]
    torch.testing.assert_close(TemplateWords(text)(text, names), text.prefix(names).plain, rtol=1e-4, atol=1e-5)


def test_words_of_names_stay_frozen_even_where_the_template_has_them_too(towers):
    text = encoder(towers)
    words = TemplateWords(text)
    (places,) = words.places(text, ["scene in the scene"])
    assert (places[:13] >= 0).tolist() == [True] * 4 + [False] * 4 + [True] * 4 + [False]


@pytest.mark.parametrize(
    ("own", "trained"),
    [
        ("two red shoes", [True, False, False, False, True]),
        ("There is no dog", [True, True, True, False, False, True]),
        ("the scene", [True, True, True, True]),
    ],
)
def test_a_text_of_its_own_shares_with_the_template_its_beginning_and_its_end(towers, own, trained):
    text = encoder(towers, shoes=own)
    (places,) = TemplateWords(text).places(text, ["shoes"])
    assert (places[: len(trained)] >= 0).tolist() == trained
    assert (places[len(trained) :] < 0).all()


def test_places_are_those_of_the_latest_names(towers):
    text = encoder(towers)
    words = TemplateWords(text)
    first, again, other = (words(text, [name]) for name in ("dog", "dog", "hot dog"))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_tower_keeps_its_embeddings(towers):
    text, before = encoder(towers), towers.text.token_embedding.weight.clone()
    words = TemplateWords(text)
    with torch.no_grad():
        words.rows += 1
    assert torch.equal(towers.text.token_embedding.weight, before)
