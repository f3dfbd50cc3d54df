"""What every key may be."""

import math

import pytest
from yacs.config import CfgNode

from configs import ConfigError, flat, load_config, restore_config
from configs.schema import SCHEMA, violation

VALUES = flat(load_config())
NUMBERS = [key for key, value in VALUES.items() if type(value) is float]
COUNTS = [key for key, value in VALUES.items() if type(value) is int]
TEXTS = [key for key, value in VALUES.items() if isinstance(value, str)]


def refused(key, value):
    return violation({**VALUES, key: value})


def test_every_key_has_a_rule_and_every_default_keeps_it():
    assert SCHEMA.keys() == VALUES.keys()
    assert violation(VALUES) is None


@pytest.mark.parametrize("key", SCHEMA)
@pytest.mark.parametrize("value", [None, object(), {}, b"x", [None], [[]], [math.nan]], ids=str)
def test_no_key_takes_what_is_of_no_type(key, value):
    assert refused(key, value).startswith(f"{key} must be ")


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, True, "1"])
def test_numbers_are_finite_and_of_this_world(key, value):
    assert refused(key, value).startswith(f"{key} must be a number ")


@pytest.mark.parametrize("key", COUNTS)
@pytest.mark.parametrize("value", [-1, 2**70, 1.5, True, "1"])
def test_counts_are_whole_and_of_this_world(key, value):
    assert refused(key, value).startswith(f"{key} must be ")


@pytest.mark.parametrize("key", TEXTS)
@pytest.mark.parametrize(
    "value", ["a\0b", "\ud800", "a" * 5000, 3, ("a",)], ids=["NUL", "half", "long", "int", "tuple"]
)
def test_texts_can_be_written_into_files(key, value):
    said = refused(key, value)
    assert said.startswith(f"{key} must be ")
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("SOLVER.LR_PERIOD", "batch", "one of epoch, step"),
        ("SOLVER.SELECT", "first", "one of last, best"),
        ("SOLVER.MAX_EPOCHS", "0", "a whole number between 1 and 1000000"),
        ("SOLVER.WARMUP_EPOCHS", "-0.5", r"a number between 0 and 1e\+06"),
        ("SOLVER.MOMENTUM", "1.5", r"a number in \[0, 1\)"),
        ("SOLVER.MOMENTUM", "1.0", r"a number in \[0, 1\)"),
        ("SOLVER.CLIP", "1.0", r"a number in \[0, 1\)"),
        ("SOLVER.GAMMA_NEG", "-1.0", "a number between 0 and 100"),
        ("MODEL.LOSS_WEIGHT", "-1.0", r"a number between 0 and 1e\+06"),
        ("MODEL.OT_REG", "0.0", r"a number in \(0, 1e\+06\]"),
        ("MODEL.OT_REG", "1e400", r"a number in \(0, 1e\+06\]"),
        ("MODEL.OT_STOP", "region", "one of image, batch"),
        ("MODEL.KERNEL_SIZE", "4", "positive and odd"),
        ("MODEL.KERNEL_SIZE", "-1", "positive and odd"),
        ("MODEL.VISION_ADAPT", "1000000", "a whole number between 0 and 10000"),
        ("MODEL.TEMPLATE", "A photo.", "a text with one {} for the label"),
        ("MODEL.TEMPLATE", "A {} of a {}.", "a text with one {} for the label"),
        ("MODEL.TEMPLATE", "a {x}", "a text with one {} for the label"),
        ("MODEL.MKT.TEMPLATE", "a {x} of {}", "a text with one {} for the label"),
        ("MODEL.MKT.LAYER_DECAY", "0.0", r"a number in \(0, 1\]"),
        ("MODEL.EMA_DECAY", "1.0", r"a number in \[0, 1\), or auto"),
        ("MODEL.DEPTH_VISION", "('last', 3.5)", "first n, last n, all, none"),
        ("MODEL.DEPTH_VISION", "()", "first n, last n, all, none"),
        ("INPUT.SIZE_TRAIN", "(224,)", "2 values, each a whole number"),
        ("INPUT.SIZE_TRAIN", "(224, 'x')", "2 values, each a whole number"),
        ("INPUT.PIXEL_MEAN", "(0.5, 0.5)", "3 values, each a number"),
        ("INPUT.PIXEL_STD", "(0.5, 0.0, 0.5)", r"3 values, each a number in \(0, 1000\]"),
        ("INPUT.CONTRAST", "(1.5, 0.5)", "the lower one first"),
        ("OUTPUT_DIR", "~nosuch/runs", "a path .* of a user that there is"),
        ("TEST.SPLIT", "train", "one of test, val"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(key, value, wanted):
    with pytest.raises(ConfigError, match=rf"^{key} must be .*{wanted}.*, not ") as caught:
        load_config(overrides=[key, value])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("MODEL.EMA_DECAY", "auto"), ("SOLVER.SCHEDULER_MAX_EPOCHS", "auto"), ("MODEL.TEMPERATURE", "auto"),
     ("DATASETS.VAL_FRACTION", "auto"), ("MODEL.SAA_LAYER", "none"), ("SOLVER.MOMENTUM", "0"), ("OUTPUT_DIR", "~/x"),
     ("INPUT.CROP", "0"), ("MODEL.METHOD", "one-of-my-own")],
)  # fmt: skip
def test_what_people_write_is_taken(key, value):
    load_config(overrides=[key, value])


def test_a_checkpoint_with_an_impossible_value_is_refused():
    text = CfgNode({"MODEL": CfgNode({"OT_REG": -1.0})}).dump()
    with pytest.raises(ConfigError, match=r"^the configuration in the checkpoint: MODEL\.OT_REG must be "):
        restore_config(text)
