import torch

from clip.prompts import DeepPrompts


def test_each_block_gets_its_own_tokens():
    prompts = DeepPrompts((1, 4), count=3, width=5)()
    assert {block: tuple(p.shape) for block, p in prompts.items()} == {1: (3, 5), 4: (3, 5)}
    assert not torch.equal(prompts[1], prompts[4])


def test_names_in_a_checkpoint_are_the_blocks():
    assert list(DeepPrompts((1, 4), count=3, width=5).state_dict()) == ["by_block.1", "by_block.4"]


def test_none_are_made_for_a_count_of_zero():
    prompts = DeepPrompts((1, 4), count=0, width=5)
    assert prompts() == {}
    assert list(prompts.parameters()) == []


def test_none_are_made_without_blocks():
    assert DeepPrompts((), count=3, width=5)() == {}


def test_tokens_are_drawn_with_a_standard_deviation_of_two_hundredths():
    torch.manual_seed(0)
    drawn = DeepPrompts((0,), count=100, width=200)()[0]
    assert abs(drawn.std().item() - 0.02) < 0.0005  # five standard errors
    assert abs(drawn.mean().item()) < 0.0008


def test_what_is_given_out_is_what_is_trained():
    prompts = DeepPrompts((2,), count=3, width=5)
    prompts()[2].sum().backward()
    assert torch.equal(prompts.by_block["2"].grad, torch.ones(3, 5))
