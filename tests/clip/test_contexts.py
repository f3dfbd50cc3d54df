"""Learned contexts against CoOp's release and a plain, uncut computation with open_clip's blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clip.contexts import Context, assembled, encode_behind, random_context, word_context
from clip.load import TextError
from clip.text import TextEncoder

RELEASE = np.load(Path(__file__).parents[1] / "data" / "release_coop.npz")
NAMES = ("dog", "traffic light", "a rather long description of what a tricycle might be")


def released(key):
    return torch.from_numpy(RELEASE[key].astype(np.float32))


def error(found, key):
    expected = released(key)
    return ((found.detach() - expected).norm() / expected.norm()).item()


@pytest.fixture
def text(towers):
    return TextEncoder(towers.text, towers.tokenize, template="a photo of a {}.", prompted=()).eval()


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def uncut(towers, names, context):
    """All 77 positions of every label through open_clip's own blocks."""
    tower, count = towers.text, context.shape[-2]
    tokens = towers.tokenize([f"{'x ' * count}{name}." for name in names])
    embedded = tower.token_embedding(tokens)
    vectors = context.expand(len(names), -1, -1)
    x = torch.cat([embedded[:, :1], vectors, embedded[:, 1 + count :]], 1) + tower.positional_embedding
    mask = torch.full((77, 77), float("-inf")).triu_(1)
    for block in tower.transformer.resblocks:
        x = block(x, attn_mask=mask)
    return tower.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ tower.text_projection


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_enters_the_tower_is_what_the_release_assembles(released_text, released_labels):
    texts, layout = assembled(released_text, released_text.bare(released_labels), released("param/context"))
    expected = released("out/sequence") + released_text.text.positional_embedding
    count = texts.front.shape[1]
    assert torch.equal(texts.front.expand(len(expected), -1, -1), expected[:, :count])
    assert torch.equal(texts.own, expected[layout.text, count + layout.place])
    assert layout.ends.tolist() == [int(e) - 1 for e in released_text.bare(released_labels).ends.cumsum(0)]
    tokens = released_text.bare(released_labels).tokens.numpy()
    assert np.array_equal(RELEASE["in/tokens"][:, 5 : 4 + tokens.shape[1]], tokens[:, 1:])


@pytest.mark.parametrize("which", ["", ".specific"])
def test_features_are_those_of_the_release(released_text, released_labels, which):
    found = encode_behind(released_text, released_text.bare(released_labels), released(f"param/context{which}"))
    assert error(found, f"out/text_features{which}") < 2e-5


def test_features_behind_words_are_those_of_the_template_as_in_the_release(released_text, released_labels):
    context = Context(word_context(released_text, "a photo of a"), recompute=False)
    found = context(released_text, released_labels)
    assert context.vectors.shape == (4, 128)
    assert error(found, "out/text_features.words") < 2e-5
    close(found, released_text.prefix(released_labels).plain)


@pytest.mark.parametrize("shape", [(5, 64), (3, 5, 64), (1, 64), (64, 64)])
def test_features_are_those_of_all_positions_of_every_label(towers, text, shape):
    names = NAMES if shape[-2] < 60 else ("dog", "traffic light", "car")
    close(encode_behind(text, text.bare(names), drawn(*shape)), uncut(towers, names, drawn(*shape)))


@pytest.mark.parametrize("shape", [(5, 64), (3, 5, 64)])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_are_those_of_all_positions_of_every_label(towers, text, shape, recompute):
    found, expected = (drawn(*shape).requires_grad_() for _ in range(2))
    weights = drawn(3, 32)
    (encode_behind(text, text.bare(NAMES), found, recompute=recompute) * weights).sum().backward()
    (uncut(towers, NAMES, expected) * weights).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-4)


@pytest.fixture
def ran(towers):
    """Shapes of what has entered the blocks, as they run."""
    shapes = []
    handles = [
        block.ln_1.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
        for block in towers.text.transformer.resblocks
    ]
    yield shapes
    for handle in handles:
        handle.remove()


def test_each_label_can_have_a_context_of_its_own_whichever_labels_are_asked_for(towers, text):
    vectors, rows = drawn(3, 5, 64), [2, 0]
    found = Context(vectors, recompute=False)(text, NAMES, torch.tensor(rows))
    close(found, uncut(towers, [NAMES[row] for row in rows], vectors[rows]))


def test_start_and_a_shared_context_run_once_for_all_labels(text, ran):
    encode_behind(text, text.bare(NAMES[:2]), drawn(5, 64))
    assert ran == [(1, 6, 64), (1, 7, 64), (1, 6, 64), (1, 7, 64), (1, 6, 64), (1, 7, 64)]  # of 3 and 4 tokens


@pytest.mark.parametrize(("recompute", "times"), [(False, 1), (True, 2)])
def test_blocks_run_again_in_the_backward_pass_where_that_is_asked_for(text, ran, recompute, times):
    Context(drawn(5, 64), recompute=recompute)(text, NAMES).sum().backward()
    assert len(ran) == 4 * times + 2  # but the last, of which only the ends are kept


def test_nothing_is_kept_to_be_computed_again_without_gradients(text, ran):
    context = Context(drawn(5, 64), recompute=True)
    with torch.no_grad():
        features = context(text, NAMES)
    assert len(ran) == 6
    close(features, Context(drawn(5, 64), recompute=False)(text, NAMES))


def test_gradients_reach_the_context_and_no_frozen_weight(text):
    context = Context(drawn(5, 64), recompute=False)
    context(text, NAMES).square().sum().backward()
    assert (context.vectors.grad.abs().sum(1) > 0).all()
    assert all(p.grad is None for p in text.parameters())


def test_some_of_the_names_are_encoded_alone(text):
    context = Context(drawn(5, 64), recompute=False)
    close(context(text, NAMES, torch.tensor([2, 0])), context(text, NAMES)[[2, 0]])


def test_features_do_not_depend_on_the_other_names(text):
    context = Context(drawn(5, 64), recompute=False)
    close(context(text, NAMES)[:1], context(text, NAMES[:1]))


def test_underscores_are_blanks(text):
    context = Context(drawn(5, 64), recompute=False)
    assert torch.equal(context(text, ["traffic_light"]), context(text, ["traffic light"]))


def test_a_text_of_its_own_stands_behind_the_context(towers, text):
    own = TextEncoder(towers.text, towers.tokenize, template="{}", prompted=(), texts={"SSBag": "a shoulder bag."})
    context = Context(drawn(5, 64), recompute=False)
    assert torch.equal(context(own, ["SSBag"]), context(text, ["a shoulder bag"]))


@pytest.mark.parametrize("count", [4, 64])
def test_a_name_that_does_not_fit_is_refused_by_name(towers, text, count):
    context = Context(drawn(count, 64), recompute=False)
    fitting = " ".join(["dog"] * (74 - count))  # start, context, name, full stop and end: 77
    close(context(text, ["cat", fitting]), uncut(towers, ["cat", fitting], drawn(count, 64)))
    with pytest.raises(
        TextError, match=rf"'dog [dog ]*' is too long .* of {count} vectors, which leaves {75 - count} t"
    ):
        context(text, ["cat", f"{fitting} dog"])


def test_vectors_are_drawn_with_a_standard_deviation_of_two_hundredths():
    torch.manual_seed(0)
    vectors = random_context(100, 200)
    assert vectors.shape == (100, 200)
    assert abs(vectors.std().item() - 0.02) < 0.0005  # five standard errors


def test_words_are_copied(text):
    context = Context(word_context(text, "a photo of a"), recompute=False)
    with torch.no_grad():
        context.vectors += 1
    assert not torch.allclose(context.vectors, word_context(text, "a photo of a"))


def test_features_under_bfloat16_autocast_are_near_those_of_float32(text):
    context = Context(drawn(5, 64), recompute=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = context(text, NAMES).float()
        found.sum().backward()
    assert torch.cosine_similarity(found, context(text, NAMES)).min() > 0.999
    assert context.vectors.grad.isfinite().all()


def test_a_context_without_names_says_the_same_whatever_they_are(text, towers):
    context = Context(word_context(text, "a photo of a"), recompute=False, named=False)
    found = context(text, NAMES)
    close(found, uncut(towers, ("",) * 3, context.vectors[None]))
    assert torch.equal(found[0], found[1])
