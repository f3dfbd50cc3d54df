"""Values as people write them, on the command line and in YAML."""

import pytest

from configs import load_config, restore_config

CASES = [
    ("WANDB", "true", True), ("WANDB", "True", True), ("WANDB", "on", True), ("MODEL.USE_EMA", "false", False),
    ("MODEL.USE_EMA", "No", False), ("SOLVER.BASE_LR", "1", 1.0), ("SOLVER.BASE_LR", "1e-3", 1e-3),
    ("MODEL.TEMPERATURE", "auto", 0.0), ("MODEL.TEMPERATURE", "0", 0.0), ("MODEL.TEMPERATURE", "2e-3", 2e-3),
    ("DATASETS.KNOWN", "single", 0.0), ("DATASETS.KNOWN", "0.1", 0.1), ("DATASETS.KNOWN", "1", 1.0),
    ("MODEL.SAA_LAYER", "all", ("all",)), ("MODEL.SAA_LAYER", "none", ("none",)),
    ("MODEL.SAA_LAYER", "first 9", ("first", 9)), ("MODEL.DEPTH_VISION", "last 3", ("last", 3)),
    ("MODEL.DEPTH_TEXT", "Last  12", ("last", 12)), ("MODEL.DEPTH_TEXT", "(9, 10)", (9, 10)),
    ("MODEL.DEPTH_TEXT", "[9, 10]", (9, 10)), ("MODEL.SAA_LAYER", "(12, -1)", (12, -1)),
    ("DATASETS.UNSEEN", "cat, traffic light", ("cat", "traffic light")), ("DATASETS.UNSEEN", "", ()),
    ("OUTPUT_DIR", "true", "true"), ("DATASETS.NAMES", "all", "all"), ("DEVICE", "auto", "auto"),
]  # fmt: skip


def value_of(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize(("key", "text", "expected"), CASES)
def test_a_text_is_understood_as_the_type_of_its_key(key, text, expected):
    found = value_of(load_config(overrides=[key, text]), key)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("key", "text", "expected"), [case for case in CASES if case[1] not in ("true", "True", "on", "")]
)
def test_a_yaml_is_understood_likewise(tmp_path, key, text, expected):
    section, _, name = key.rpartition(".")
    quoted = text if text.startswith("[") else f'"{text}"'
    (tmp_path / "a.yml").write_text(f"{section}: {{{name}: {quoted}}}" if section else f"{name}: {quoted}")
    assert value_of(load_config(tmp_path / "a.yml"), key) == expected


def test_a_configuration_comes_back_from_its_text():
    cfg = load_config("configs/shapes.yml", ["MODEL.TEMPERATURE", "auto", "DATASETS.UNSEEN", "a,b"])
    assert restore_config(cfg.dump()) == cfg
