"""What the documents say of results is what the committed result files hold."""

import json
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FEW = ROOT / "docs" / "results" / "few"
SIZES, SEEDS = (100, 300, 1000), (1, 2, 3)


def few(images, seed, method, protocol, metric):
    content = json.loads((FEW / f"{images}-seed-{seed}.json").read_text())
    assert content["about"]["config"]["DATASETS.TRAIN"] == f"shapes:train[:{images}]"
    assert content["about"]["config"]["SOLVER.SEED"] == seed
    return content["results"][method][protocol][metric]


def cells(images, method):
    for protocol in ("ZSL", "GZSL"):
        for metric in ("F1@3", "mAP"):
            values = [few(images, seed, method, protocol, metric) for seed in SEEDS]
            yield f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def test_the_table_of_few_images_is_that_of_its_result_files():
    text = (ROOT / "docs" / "data.md").read_text()
    for images in SIZES:
        assert f"| RAM (EMA), {images:,} images | {' | '.join(cells(images, 'RAM (EMA)'))} |" in text


@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("protocol", ["ZSL", "GZSL"])
def test_ram_is_nowhere_below_zero_shot_clip_on_few_images(images, protocol):
    for seed in SEEDS:
        for metric in ("F1@3", "mAP"):
            clip, ram = (few(images, seed, m, protocol, metric) for m in ("zero-shot CLIP", "RAM (EMA)"))
            assert ram > clip
