"""Packed texts against whole ones, block by block."""

import pytest
import torch

from clip.blocks import run_block
from clip.packed import Texts, few_at_a_time, layout_of, run_ends, run_texts, shared_tokens

LENGTHS = torch.tensor([3, 1, 5, 2])


def drawn(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["shared", "own"])
def texts(request):
    """Four texts behind a front of six tokens, of all or of each."""
    return Texts(drawn(1 if request.param == "shared" else 4, 6, 64), drawn(11, 64, seed=1))


@pytest.fixture
def block(towers):
    return towers.text.transformer.resblocks[1]


def by_text(own):
    return own.split(LENGTHS.tolist())


def whole(texts):
    """Each text by itself."""
    fronts = texts.front.expand(4, -1, -1)
    return [torch.cat([front, own])[None] for front, own in zip(fronts, by_text(texts.own), strict=True)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_every_token_is_what_it_is_in_its_text_alone(block, texts):
    out = run_texts(block, texts, layout_of(LENGTHS))
    for k, (text, own) in enumerate(zip(whole(texts), by_text(out.own), strict=True)):
        expected = run_block(block, text, causal=True)[0]
        close(own, expected[6:])
        close(out.front.expand(4, -1, -1)[k], expected[:6])


def test_ends_are_the_last_tokens(block, texts):
    expected = torch.cat([run_block(block, text, causal=True)[:, -1] for text in whole(texts)])
    close(run_ends(block, texts, layout_of(LENGTHS)), expected)


@pytest.mark.parametrize("run", [lambda *args: run_texts(*args).own, run_ends], ids=["all", "ends"])
def test_gradients_are_those_of_texts_alone(block, texts, run):
    ours, theirs = ([part.clone().requires_grad_() for part in texts] for _ in range(2))
    layout = layout_of(LENGTHS)
    run(block, Texts(*ours), layout).sin().sum().backward()
    outs = [run_block(block, text, causal=True)[0, 6:] for text in whole(Texts(*theirs))]
    sum((out if run is not run_ends else out[-1:]).sin().sum() for out in outs).backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_a_layout_says_where_tokens_belong():
    layout = layout_of(LENGTHS)
    assert layout.text.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3]
    assert layout.place.tolist() == [0, 1, 2, 0, 0, 1, 2, 3, 4, 0, 1]
    assert layout.ends.tolist() == [2, 3, 8, 10]
    assert layout.longest == 5


def test_a_few_texts_at_a_time_are_all_of_them_with_the_same_front():
    texts = Texts(drawn(1, 6, 64), drawn(11, 64, seed=1))
    (first, ahead), (second, behind) = few_at_a_time(texts, layout_of(LENGTHS), 3)
    assert torch.equal(torch.cat([first.own, second.own]), texts.own)
    assert all(part.front is texts.front for part in (first, second))
    for layout, lengths in ((ahead, LENGTHS[:3]), (behind, LENGTHS[3:])):
        for found, expected in zip(layout, layout_of(lengths), strict=True):
            assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))


def test_whole_texts_are_packed_again(texts):
    layout = layout_of(LENGTHS)
    together = layout.whole(texts)
    assert together.shape == (4, 11, 64)
    assert torch.equal(layout.packed(together[:, 6:]), texts.own)
    assert not together[1, 7:].any()


@pytest.mark.parametrize(
    ("tokens", "shared"),
    [([[9, 1, 2, 7, 99], [9, 1, 2, 8, 99]], 3), ([[9, 1, 99, 0], [9, 1, 99, 0]], 2), ([[9, 1, 2, 99]], 3),
     ([[9, 99, 0], [9, 1, 99]], 1), ([[9, 1, 99, 0], [9, 1, 1, 99]], 2)],
)  # fmt: skip
def test_texts_share_what_they_begin_with_but_no_end(tokens, shared):
    tokens = torch.tensor(tokens)
    assert shared_tokens(tokens, tokens.argmax(-1)) == shared
