"""The text encoder against open_clip's own tower and a plain, uncut computation of Eq. (2)."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clip import text
from clip.packed import run_texts
from clip.text import KEPT_LISTS, Prefix, TextEncoder

NAMES = ("dog", "traffic light", "a rather long description of what a tricycle might be")
FULL = " ".join(["dog"] * 70)  # "A photo of a ... ." with start and end: exactly 77 tokens


def encoder_of(towers, prompted=(1, 2), template="A photo of a {}."):
    return TextEncoder(towers.text, towers.tokenize, template=template, prompted=prompted).eval()


def prompts_for(*blocks, count=4):
    generator = torch.Generator().manual_seed(3)
    return {block: torch.randn(count, 64, generator=generator) for block in blocks}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def tokens_of(towers, names):
    return towers.tokenize([f"A photo of a {name}." for name in names])


def uncut(towers, names, prompts):
    """Eq. (2) over all 77 positions: sequences cut to 77 with the prompts in, the rest appended again."""
    text, tokens = towers.text, tokens_of(towers, names)
    mask = torch.full((77, 77), float("-inf")).triu_(1)
    x = text.token_embedding(tokens) + text.positional_embedding
    for index, block in enumerate(text.transformer.resblocks):
        if index not in prompts:
            x = block(x, attn_mask=mask)
            continue
        prompt = prompts[index].expand(len(x), -1, -1)
        sequence, aside = torch.cat([x[:, :1], prompt, x[:, 1:]], 1).split([77, len(prompts[index])], 1)
        out = block(sequence, attn_mask=mask)
        x = torch.cat([out[:, :1], out[:, 1 + prompt.shape[1] :], aside], 1)
    x = text.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)]
    return x @ text.text_projection


@pytest.mark.parametrize("prompted", [(), (0, 1, 2), (2,)])
@pytest.mark.parametrize("names", [NAMES, ("dog", FULL)])
def test_features_without_prompts_are_those_of_open_clip_over_the_whole_context(towers, prompted, names):
    expected = towers.text(tokens_of(towers, names))
    encoder = encoder_of(towers, prompted)
    close(encoder(names, {}), expected)
    close(encoder.prefix(names).plain, expected)


@pytest.mark.parametrize("blocks", [(1, 2), (0, 1, 2), (0, 2), (2,)])
def test_features_with_prompts_follow_the_equation_over_the_whole_context(towers, blocks):
    prompts = prompts_for(*blocks)
    found = encoder_of(towers, blocks)(NAMES, prompts)
    close(found, uncut(towers, NAMES, prompts))
    assert not torch.allclose(found, towers.text(tokens_of(towers, NAMES)), atol=1e-2)


@pytest.mark.parametrize("words", [65, 66, 67, 68, 69, 70])
def test_tokens_that_prompts_push_out_of_the_context_sit_the_block_out(towers, words):
    names, prompts = ("dog", " ".join(["dog"] * words)), prompts_for(1, 2)
    close(encoder_of(towers)(names, prompts), uncut(towers, names, prompts))


def test_texts_are_computed_a_few_at_a_time_however_many_there_are(towers, monkeypatch):
    monkeypatch.setattr(text, "TOGETHER", 2)
    sizes = []
    monkeypatch.setattr(text, "run_texts", lambda *args: (sizes.append(len(args[2].ends)), run_texts(*args))[1])
    names, prompts = (*NAMES, "cat", "sun"), prompts_for(2)
    plain = encoder_of(towers, (2,)).prefix(names).plain
    assert set(sizes) == {1, 2}
    close(plain, towers.text(tokens_of(towers, names)))
    close(encoder_of(towers, (2,))(names, prompts), uncut(towers, names, prompts))


@pytest.mark.parametrize(("gradients", "most"), [(False, 2), (True, 5)])
def test_behind_the_prompts_too_unless_gradients_are_wanted(towers, monkeypatch, gradients, most):
    names, prompts, sizes = (*NAMES, "cat", "sun"), prompts_for(1, 2), []
    encoder = encoder_of(towers)
    encoder.prefix(names)
    monkeypatch.setattr(text, "TOGETHER", 2)
    monkeypatch.setattr(text, "run_texts", lambda *args: (sizes.append(len(args[2].ends)), run_texts(*args))[1])
    with torch.set_grad_enabled(gradients):
        close(encoder(names, prompts), uncut(towers, names, prompts))
    assert max(sizes) == most


def test_prompted_blocks_without_a_prompt_run_as_they_are(towers):
    prompts = prompts_for(2)
    close(encoder_of(towers, (1, 2))(NAMES, prompts), uncut(towers, NAMES, prompts))


def test_what_names_share_is_kept_once_and_each_is_kept_to_its_own_end(towers):
    texts = encoder_of(towers).prefix(NAMES).texts
    lengths = tokens_of(towers, NAMES).argmax(-1) + 1
    assert texts.front.shape == (1, 5, 64)  # start, A photo of a
    assert texts.own.shape == (int((lengths - 5).sum()), 64)


def test_features_do_not_depend_on_the_other_names(towers):
    encoder, prompts = encoder_of(towers), prompts_for(1, 2)
    close(encoder(NAMES, prompts)[:1], encoder(NAMES[:1], prompts))


def test_template_is_filled_with_each_name(towers):
    close(encoder_of(towers, template="{} at sea")(["dog"], {}), towers.text(towers.tokenize(["dog at sea"])))


@pytest.fixture
def ran(towers):
    """Indices of the blocks that have run, as they run."""
    order = []
    handles = [
        block.ln_1.register_forward_hook(lambda *_, index=index: order.append(index))
        for index, block in enumerate(towers.text.transformer.resblocks)
    ]
    yield order
    for handle in handles:
        handle.remove()


def test_frozen_part_runs_once_for_a_list_of_names(towers, ran):
    encoder, prompts = encoder_of(towers, (2,)), prompts_for(2)
    encoder(NAMES, prompts)
    assert ran == [0, 0, 1, 1, 2, 2, 2, 2]  # what is shared and what is not: the frozen tower, then the prompted block
    encoder(list(NAMES), prompts)
    assert ran == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_another_list_of_names_is_another_prefix(towers):
    encoder = encoder_of(towers)
    encoder(NAMES, {})
    close(encoder(NAMES[::-1], {}), towers.text(tokens_of(towers, NAMES[::-1])))


def test_names_without_a_template_are_cut_at_the_longest_ones_end_and_read_once(towers):
    encoder = encoder_of(towers)
    bare = encoder.bare(("dog", "traffic_light"))
    expected = towers.tokenize(["dog.", "traffic light."])
    assert torch.equal(bare.tokens, expected[:, :5])
    assert torch.equal(bare.ends, torch.tensor([3, 4]))
    assert encoder.bare(["dog", "traffic_light"]) is bare
    assert torch.equal(encoder.bare_tokens(("dog", "traffic_light")), expected)
    assert isinstance(encoder.prefix(("dog", "traffic_light")), Prefix)  # kept apart


def test_least_recently_used_list_is_forgotten_first(towers, ran):
    encoder = encoder_of(towers, ())
    lists = [(f"label {index}",) for index in range(KEPT_LISTS)]
    for names in lists:
        encoder.prefix(names)
    encoder.prefix(lists[0])  # used again: now the second is the oldest
    encoder.prefix(("one more",))
    ran.clear()
    for names in (lists[0], *lists[2:], ("one more",)):
        encoder.prefix(names)
    assert ran == []
    encoder.prefix(lists[1])
    assert ran == [0, 0, 1, 1, 2, 2]


def test_prefix_is_in_full_precision_even_under_autocast(towers):
    expected = encoder_of(towers).prefix(NAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder_of(towers).prefix(NAMES)
    assert torch.equal(found.texts.own, expected.texts.own)
    assert torch.equal(found.plain, expected.plain)


def test_a_tower_in_bfloat16_takes_prompts_in_float32(towers):
    encoder = TextEncoder(copy.deepcopy(towers.text).bfloat16(), towers.tokenize, template="{}", prompted=(1, 2))
    with torch.no_grad():
        features = encoder((*NAMES, FULL), prompts_for(1, 2))
        expected = encoder_of(towers, template="{}")((*NAMES, FULL), prompts_for(1, 2))
    assert features.dtype == torch.bfloat16
    assert torch.cosine_similarity(features.float(), expected, dim=-1).min() > 0.99


def test_prompted_features_under_autocast_are_near_those_of_float32(towers):
    encoder, prompts = encoder_of(towers), prompts_for(1, 2)
    expected = encoder(NAMES, prompts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(NAMES, prompts).float()
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_prefix_follows_the_tower_to_another_device(towers):
    encoder = encoder_of(towers)
    on_cpu = encoder.prefix(NAMES).plain
    try:
        found = encoder.to("cuda").prefix(NAMES).plain
    finally:
        encoder.to("cpu")
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), on_cpu, rtol=1e-3, atol=1e-4)


def test_gradients_reach_prompts_and_no_frozen_weight(towers):
    encoder = encoder_of(towers)
    prompts = {block: nn.Parameter(p) for block, p in prompts_for(1, 2).items()}
    encoder(NAMES, prompts).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in prompts.values())
    assert all(p.grad is None for p in encoder.parameters())
    assert not encoder.prefix(NAMES).texts.own.requires_grad


def test_widths_are_those_of_the_tower(towers):
    assert (encoder_of(towers).width, encoder_of(towers).joint_width) == (64, 32)


def test_weights_are_registered_once(towers):
    assert {name.split(".")[0] for name in encoder_of(towers).state_dict()} == {"text"}


def test_a_name_with_a_text_of_its_own_does_not_take_the_template(towers):
    own = TextEncoder(
        towers.text, towers.tokenize, template="A photo of a {}.", prompted=(1,), texts={"SSBag": "A shoulder bag."}
    )
    expected = encoder_of(towers, prompted=(1,), template="{}")(
        ["A shoulder bag.", "A photo of a dog."], prompts_for(1)
    )
    close(own(["SSBag", "dog"], prompts_for(1)), expected)


def test_features_of_texts_are_those_of_open_clip_and_nothing_is_kept(towers, monkeypatch):
    monkeypatch.setattr("clip.text.TOGETHER", 2)  # three texts are two batches
    encoder, texts = encoder_of(towers), ["a dog", "a painting of a rather long tricycle", "kite"]
    close(encoder.features(texts), towers.text(towers.tokenize(texts)))
    assert not encoder._kept


def test_features_over_several_templates_are_the_normalised_mean_of_normalised_ones(towers):
    encoder = TextEncoder(towers.text, towers.tokenize, template="{}", prompted=(), texts={"car": "a fast car"}).eval()
    found = encoder.averaged(("dog", "car"), ("a {}.", "art of a {}."))
    dog = F.normalize(towers.text(towers.tokenize(["a dog.", "art of a dog."])), dim=-1).mean(0)
    close(found, F.normalize(torch.stack([dog, towers.text(towers.tokenize(["a fast car"]))[0]]), dim=-1))
