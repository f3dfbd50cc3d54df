"""What is built to be measured."""

import torch

from tools.benchmarking.models import BASE, WORDS, build, label_names
from tools.benchmarking.precision import Precision


def test_in_half_precision_the_frozen_image_tower_is_stored_in_it(tiny, quick):
    built = build(tiny, quick, Precision("bf16", torch.bfloat16))
    assert built.towers.visual.conv1.weight.dtype == torch.bfloat16
    assert built.method.local_temperature.dtype == torch.float32


def test_names_are_all_different_and_the_shortest_come_first():
    names = label_names(len(WORDS) ** 2 + 200)
    assert len(set(names)) == len(names)
    lengths = [len(name.split()) for name in names]
    assert lengths == sorted(lengths)
    assert lengths[len(WORDS) - 1 : len(WORDS) + 1] == [1, 2]


def test_words_are_single_tokens(tiny, quick):
    tokens = build(tiny, quick).towers.tokenize(list(WORDS))
    assert tokens.argmax(1).tolist() == [2] * len(WORDS)  # start, word, end


def test_a_model_is_made_once_for_its_arguments(tiny, quick):
    assert build(tiny, quick) is build(tiny, quick)
    other = build(tiny, quick, overrides=("MODEL.OT_REG", "0.2"))
    assert (other.cfg.MODEL.OT_REG, build(tiny, quick).cfg.MODEL.OT_REG) == (0.2, 0.1)


def test_the_batch_and_the_precision_are_those_that_are_asked_for(tiny, quick):
    cfg = build(tiny, quick).cfg
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.AMP, cfg.TEST.AMP) == (2, "off", "off")
    assert build(tiny, quick).images(3).shape == (3, 3, 32, 32)


def test_the_same_weights_are_drawn_every_time(tiny, quick):
    first = build(tiny, quick).method.state_dict()
    build.cache_clear()
    again = build(tiny, quick).method.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_vit_b_16_is_measured_with_coco_s_recipe():
    assert (BASE.name, BASE.config) == ("ViT-B/16", "coco.yml")
