"""The fewest operations: beside published shares, and beside what torch counts when the product runs."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tools.benchmarking.floor import Floor, TextLengths, lengths_of, solver
from tools.benchmarking.models import build, label_names
from tools.benchmarking.one_image import random_labels
from tools.benchmarking.rounds import train_round

BASE = Floor(
    width=768, joint=512, blocks=12, patch=768, regions=196, adapted=3, text_width=512, text_blocks=12, prompted=3
)
COCO, NUS = TextLengths(48, 9, 158), TextLengths(925, 9, 3052)  # 3.3 own tokens a label


@pytest.mark.parametrize(
    ("flop", "expected"),  # GFLOP of ViT-B/16, derived by hand from the shapes
    [
        (BASE.train(32, COCO), 2272), (BASE._replace(prompted=6).train(32, NUS), 2703),
        (BASE.recognise(1, 65), 44.8), (BASE.recognise(1, 1006), 47.2),
        (BASE.evaluate(1, [(1, 17), (1, 65)], weights=1), 45.4),
    ],
)  # fmt: skip
def test_operations_of_vit_b_16_are_those_derived_by_hand(flop, expected):
    assert flop / 1e9 == pytest.approx(expected, rel=2e-3)


def counted(run):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as mode:  # others are not counted on a CPU
        run()
    return mode.get_total_flops()


@pytest.mark.parametrize("depth", ["last 2", "last 1"])
def test_the_product_does_little_more_than_the_fewest_operations(tiny, quick, depth):
    built = build(tiny, quick, overrides=("MODEL.DEPTH_VISION", depth, "MODEL.DEPTH_TEXT", depth))
    names, floor, method = label_names(40), built.floor(), built.method.eval()
    labels, pixels = random_labels(built, 40), built.images(2)
    assert 1 <= counted(lambda: method(pixels, labels)) / floor.recognise(2, 40) < 1.02
    assert 1 <= counted(lambda: method.encode_labels(names)) / floor.encode(built.lengths(names)) < 1.1
    step = train_round(method, built.cfg, names, quick.device, steps=1)
    assert 1 <= counted(step) / floor.train(2, built.lengths(names)) < 1.15


def test_two_sets_of_weights_share_what_is_in_front_of_the_prompts():
    one, two = (BASE.evaluate(3, [(3, 65)], weights) for weights in (1, 2))
    assert one == pytest.approx(BASE.recognise(3, 65))
    assert 2 * one - two == pytest.approx(3 * BASE.stem)


def test_texts_are_as_long_as_they_are_and_their_beginning_is_one():
    tokens = torch.tensor([[8, 1, 2, 3, 9, 0, 0], [8, 1, 2, 9, 0, 0, 0], [8, 1, 2, 4, 5, 6, 9]])
    assert lengths_of(tokens) == TextLengths(texts=3, shared=3, own=2 + 1 + 4)


def test_the_solver_multiplies_a_matrix_twice_in_each_iteration():
    assert solver(2, 3, 5, iterations=7) == 7 * 2 * (2 * 3 * 5 * 2)
