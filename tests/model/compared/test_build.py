"""Settings of the compared methods that are refused by name."""

import pytest
import torch

from configs import load_config
from model import ModelError, build_method

TINY = ["MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random"]


def build(towers, *overrides):
    return build_method(load_config(overrides=[*TINY, *overrides]), towers)


@pytest.mark.parametrize("method", ["coop", "dualcoop"])
@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [("COUNT", "0", "between 1 and 74, not 0"), ("COUNT", "75", "between 1 and 74, not 75"),
     ("WORDS", "dog " * 75, "74 tokens at most, not 75")],
)  # fmt: skip
def test_a_context_needs_a_vector_and_leaves_a_place_for_a_name(towers, method, key, value, wanted):
    with pytest.raises(ModelError, match=f"MODEL.CONTEXT.{key} must be {wanted}"):
        build(towers, "MODEL.METHOD", method, f"MODEL.CONTEXT.{key}", value)


@pytest.mark.parametrize("count", ["1", "74"])
def test_the_fewest_and_the_most_vectors_are_possible(towers, count):
    method = build(towers, "MODEL.METHOD", "coop", "MODEL.CONTEXT.COUNT", count)
    assert method.context.vectors.shape == (int(count), 64)


def test_random_state_decides_what_is_drawn(towers):
    drawn = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            drawn.append(build(towers, "MODEL.METHOD", "dualcoop").trained_state())
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not torch.equal(drawn[0]["positive.vectors"], drawn[0]["negative.vectors"])


def test_texts_of_labels_reach_the_text_tower(towers):
    cfg = load_config(overrides=[*TINY, "MODEL.METHOD", "coop"])
    method = build_method(cfg, towers, texts={"SSBag": "a shoulder bag."})
    assert torch.equal(method.encode_labels(["SSBag"]), method.encode_labels(["a shoulder bag"]))
