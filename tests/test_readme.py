"""What the README says of results is what the committed result files hold."""

import json
import re
from pathlib import Path

import pytest

from tools import compare

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = {seed: ROOT / f"docs/results/shapes/seed-{seed}.json" for seed in (42, 1, 2, 3)}
COLUMNS = ("P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "mAP", "CF1@3")
METHODS = ("zero-shot CLIP", "RAM", "RAM (EMA)")


def read(seed):
    return json.loads(RESULTS[seed].read_text())["results"]


def test_the_table_of_the_demo_is_that_of_its_result_file():
    lines = README[README.index("    method          protocol") :].split("\n\n")[0].splitlines()
    assert tuple(lines[0].split()[2:]) == COLUMNS
    expected = [
        [method, protocol, *(f"{values[column]:.2f}" for column in COLUMNS)]
        for method, protocols in read(42).items()
        for protocol, values in protocols.items()
    ]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines[2:]] == expected
    assert len(expected) == 2 * len(METHODS)


def test_the_table_of_the_seeds_is_that_of_their_result_files(capsys):
    assert compare.main([str(RESULTS[seed]) for seed in (1, 2, 3)]) == 0
    assert capsys.readouterr().out.strip() in README


@pytest.mark.parametrize(("protocol", "words"), [("ZSL", "on unseen labels"), ("GZSL", "on all labels")])
def test_the_smallest_gains_are_those_of_all_result_files(protocol, words):
    gains = {"F1@3": [], "mAP": []}
    for seed in RESULTS:
        rows = {method: read(seed)[method][protocol] for method in METHODS}
        for metric, found in gains.items():
            found += [rows[method][metric] - rows["zero-shot CLIP"][metric] for method in METHODS[1:]]
    smallest = {metric: int(10 * min(found)) / 10 for metric, found in gains.items()}
    assert min(smallest.values()) >= 3
    said = " ".join(README[README.index("Over these seeds") :].split(". ")[0].split())
    numbers = {"ZSL": said.partition("over zero-shot")[0], "GZSL": said.partition("on unseen labels,")[2]}[protocol]
    assert [float(number) for number in re.findall(r"\d+\.\d", numbers)] == [smallest["F1@3"], smallest["mAP"]]
    assert words in said


def test_every_link_of_readme_and_docs_leads_to_a_file():
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_tool_is_named_in_the_layout():
    layout = README[README.index("## Layout") :]
    for tool in (ROOT / "tools").glob("[a-z]*.py"):
        assert f"`{tool.name}`" in layout
