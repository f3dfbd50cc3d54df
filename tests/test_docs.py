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


def test_the_table_of_drawn_concepts_is_that_of_its_result_file():
    text = (ROOT / "docs" / "emoji.md").read_text()
    content = json.loads((ROOT / "docs" / "results" / "emoji" / "seed-42.json").read_text())
    config = content["about"]["config"]
    assert (config["SOLVER.SEED"], config["DATASETS.TEST"]) == (42, "emoji:test")
    for method, protocols in content["results"].items():
        for protocol, found in protocols.items():
            cells = " | ".join(f"{found[key]:.1f}" for key in ("P@3", "R@3", "F1@3", "F1@5", "mAP"))
            assert f"| {method} | {protocol} | {cells} |" in text


def test_the_means_over_seeds_of_drawn_concepts_are_those_of_the_page_of_results():
    found = (ROOT / "docs" / "results.md").read_text().partition("## emoji")[2].partition("\n## ")[0]
    text = (ROOT / "docs" / "emoji.md").read_text()
    for name, title in (("CLIP", "zero-shot CLIP"), ("RAM", "RAM")):
        (line,) = [line for line in found.splitlines() if line.startswith(f"| {name} | ") and "." in line][:1]
        cells = " | ".join(line.replace("*", "").split(" | ")[1:5])
        assert f"| {title} | {cells} |" in text


@pytest.mark.parametrize("protocol", ["ZSL", "GZSL"])
@pytest.mark.parametrize("score", ["published", "probability"])
def test_the_table_of_probabilities_of_drawn_concepts_is_that_of_its_result_files(score, protocol):
    rows = []
    for seed in SEEDS:
        content = json.loads((ROOT / "docs" / "results" / "emoji" / f"probabilities-seed-{seed}.json").read_text())
        assert content["about"]["config"]["SOLVER.SEED"] == seed
        rows += [row for row in content["results"] if (row["score"], row["protocol"]) == (score, protocol)]
    cells = []
    for key, decimals in (*ROWS[:3], *((key, 4) for key, _ in ROWS[3:])):
        values = [row[key] for row in rows]
        spread = None if None in values else f"{statistics.stdev(values):.{decimals}f}"
        cells.append("-" if spread is None else f"{statistics.mean(values):.{decimals}f} ± {spread}")
    assert f"| {score} | {protocol} | {' | '.join(cells)} |" in (ROOT / "docs" / "emoji.md").read_text()


KINDS = {"RAM": "", "RAM, its recipe": "recipe-", "RAM with peaks": "peaks-"}


def probability(seed, score, protocol, key, kind="RAM"):
    content = json.loads((ROOT / "docs" / "results" / "probabilities" / f"{KINDS[kind]}seed-{seed}.json").read_text())
    config = content["about"]["config"]
    assert config["SOLVER.SEED"] == seed
    assert (config["MODEL.METHOD"], config["SOLVER.BASE_LR_SGD"], config["INPUT.RE_PROB"]) == (
        "ram-peaks" if kind == "RAM with peaks" else "ram", *((1e-3, 0.5) if kind == "RAM" else (1e-4, 0.0))
    )  # fmt: skip
    (row,) = [r for r in content["results"] if (r["score"], r["protocol"]) == (score, protocol)]
    return row[key]


ROWS = (("f1", 1), ("precision", 1), ("overall_f1", 1), ("ece_seen", 3), ("ece_unseen", 3), ("brier", 3))


@pytest.mark.parametrize("protocol", ["ZSL", "GZSL"])
@pytest.mark.parametrize("score", ["published", "probability"])
def test_the_table_of_probabilities_is_that_of_its_result_files(score, protocol):
    cells = []
    for key, decimals in ROWS:
        values = [probability(seed, score, protocol, key) for seed in SEEDS]
        spread = None if None in values else f"{statistics.stdev(values):.{decimals}f}"
        cells.append("-" if spread is None else f"{statistics.mean(values):.{decimals}f} ± {spread}")
    text = (ROOT / "docs" / "probabilities.md").read_text()
    assert f"| {score} | {protocol} | {' | '.join(cells)} |" in text


@pytest.mark.parametrize("protocol", ["ZSL", "GZSL"])
@pytest.mark.parametrize("score", ["published", "probability"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_peaks_is_that_of_its_result_files(kind, score, protocol):
    cells = []
    for key, decimals in ROWS[:3]:
        values = [probability(seed, score, protocol, key, kind) for seed in SEEDS]
        spread = None if None in values else f"{statistics.stdev(values):.{decimals}f}"
        cells.append("-" if spread is None else f"{statistics.mean(values):.{decimals}f} ± {spread}")
    text = (ROOT / "docs" / "probabilities.md").read_text()
    assert f"| {kind} | {score} | {protocol} | {' | '.join(cells)} |" in text


@pytest.mark.parametrize("seed", SEEDS)
def test_with_peaks_map_is_six_points_above_rams_published_score(seed):
    for protocol in ("ZSL", "GZSL"):
        ours = probability(seed, "probability", protocol, "precision", "RAM with peaks")
        assert ours >= probability(seed, "published", protocol, "precision") + 6


@pytest.mark.parametrize("seed", SEEDS)
def test_probabilities_rank_better_than_published_scores_by_what_is_said(seed):
    for protocol, gain in (("ZSL", 3.5), ("GZSL", 3.0)):
        published, ours = ({key: probability(seed, score, protocol, key) for key, _ in ROWS}
                           for score in ("published", "probability"))  # fmt: skip
        assert ours["precision"] - published["precision"] >= gain
        assert ours["f1"] >= published["f1"]
    assert ours["overall_f1"] >= 77
    assert max(ours["ece_seen"], ours["ece_unseen"]) <= 0.02
