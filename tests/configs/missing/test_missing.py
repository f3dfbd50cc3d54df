"""Configurations of protocols with missing labels."""

from pathlib import Path

import pytest
import yaml

from configs import flat, load_config
from datasets.benchmarks.missing.protocols import PROTOCOLS, READERS
from datasets.benchmarks.published import BY_NAME

MISSING = Path(__file__).parents[3] / "configs" / "missing"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_one_that_reads_the_lists_that_are_prepared_for_it(protocol):
    keys = load_config(MISSING / f"{protocol}.yml").DATASETS
    assert [f"records/{protocol}/train.json", f"records/{protocol}/test.json"] == [keys.TRAIN, keys.TEST]
    assert f"COCO_{protocol.upper()}" == keys.NAMES
    assert keys.CHOOSE == "none"  # all labels are seen


@pytest.mark.parametrize("path", sorted(MISSING.glob("*.yml")), ids=lambda path: path.name)
def test_it_holds_only_what_differs_from_the_defaults(path):
    defaults, cfg = flat(load_config()), flat(load_config(path))
    sections = yaml.safe_load(path.read_text())
    written = [
        f"{section}.{key}" for section, values in sections.items() if isinstance(values, dict) for key in values
    ]  # fmt: skip
    assert [key for key in written if cfg[key] == defaults[key]] == []


def test_every_data_set_under_a_protocol_has_published_sizes():
    assert {f"{benchmark}_{protocol}".upper() for benchmark, protocol in READERS} <= BY_NAME.keys()
