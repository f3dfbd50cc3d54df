"""The page of all results."""

import re
from pathlib import Path

import pytest

from tools.reproduction import page
from tools.reproduction.page import page_text, write_page

COMMITTED = Path(__file__).parents[3] / "docs" / "results.md"
pytestmark = pytest.mark.usefixtures("known_tables")


@pytest.fixture
def folder(planned, filled, tmp_path):
    """The folder of a page, with results of two tables."""
    filled(planned("5", "9", seeds=(1, 2)))
    (tmp_path / "results" / "old.json").write_text('{"about": "something else"}')
    return tmp_path


def test_every_table_with_two_rows_or_more_has_a_section(folder):
    titles = re.findall(r"^##+ (.*)$", page_text(folder / "results.md"), re.MULTILINE)
    assert titles[:2] == ["shapes", "Table 5: Matching of regions and labels"]
    assert [title.partition(":")[0] for title in titles[1:]] == ["Table 5", "Table 6", "Table 9", "Table 12"]


def test_a_section_says_how_it_was_made_and_what_was_found(folder):
    section = page_text(folder / "results.md").split("### ")[1]
    assert "Seeds 1, 2. `python tools/reproduce.py --table 5 --config_file configs/shapes.yml`" in section
    assert "| KCOT | " in section
    assert "| KCOT over OT | " in section
    assert "* KCOT > OT > Average > Re-weight: ZSL " in section


def test_remarks_on_a_table_stand_below_it(folder):
    (folder / "results" / "notes").mkdir()
    (folder / "results" / "notes" / "shapes-5.md").write_text("Because of *that*.\n")
    before, note, after = page_text(folder / "results.md").partition("\n\nBecause of *that*.\n\n")
    assert before.splitlines()[-1].startswith("| Re-weight | ")
    assert after.startswith("| the paper |")


def test_the_origin_of_results_is_said(folder):
    text = page_text(folder / "results.md")
    assert "20 runs of `configs/shapes.yml`, 0.7 hours of them; 2.0 minutes each on average." in text
    assert "On a processor (2 cores), torch 2. Commits: 0123456789." in text


def test_the_page_is_written_with_its_figures_and_those_of_what_is_gone_are_removed(folder, monkeypatch):
    monkeypatch.setattr(page.tables, "NAMES", ("9",))
    old = folder / "figures" / "results" / "shapes-10.png"
    old.parent.mkdir(parents=True)
    old.touch()
    (folder / "results.md").write_text("![](figures/results/shapes-10.png)\n")
    write_page(folder / "results.md")
    text = (folder / "results.md").read_text()
    assert text == page_text(folder / "results.md")
    links = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert links == ["figures/results/shapes-9.png", "figures/results/shapes-9-training.png"]
    assert {path.relative_to(folder).as_posix() for path in old.parent.iterdir()} == set(links)


def test_a_picture_that_the_page_did_not_show_stays(folder, monkeypatch):
    monkeypatch.setattr(page.tables, "NAMES", ("9",))
    own = folder / "figures" / "results" / "my-plot.png"
    own.parent.mkdir(parents=True)
    own.touch()
    write_page(folder / "results.md")
    assert own.is_file()


def test_results_of_other_settings_are_a_benchmark_of_their_own(planned, filled, tmp_path):
    for overrides in ((), ("SOLVER.MAX_EPOCHS", "1")):
        filled(planned("11", overrides=overrides), folder=tmp_path / "results" / "-".join(overrides))
    text = page_text(tmp_path / "results.md")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["shapes", "shapes, SOLVER.MAX_EPOCHS 1"]
    assert "--config_file configs/shapes.yml SOLVER.MAX_EPOCHS 1`" in text
    assert "(figures/results/shapes-SOLVER.MAX_EPOCHS-1-11.png)" in text
    assert "One seed: no spread is known." in text


def test_what_is_not_trained_has_no_curves(planned, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(page.tables, "NAMES", ("11",))
    plan = planned("11")
    folder = filled(plan)
    for job in plan.jobs:
        text = (folder / job.file).read_text()
        (folder / job.file).write_text(re.sub(r'"loss": \[\[.*?\]\]', '"loss": []', text))
    write_page(tmp_path / "results.md")
    assert [path.name for path in (tmp_path / "figures" / "results").iterdir()] == ["shapes-11.png"]
    assert "training.png" not in (tmp_path / "results.md").read_text()


def test_without_results_there_is_a_head_alone(tmp_path):
    assert page_text(tmp_path / "results.md") == f"{page.HEAD}\n"


@pytest.mark.skipif(not COMMITTED.is_file(), reason="there is no page of results")
def test_the_committed_page_is_what_the_command_makes(monkeypatch):
    monkeypatch.undo()
    assert COMMITTED.read_text() == page_text(COMMITTED)
    for link in re.findall(r"\]\((figures/[^)]+)\)", COMMITTED.read_text()):
        assert (COMMITTED.parent / link).is_file()


def test_a_table_without_results_at_one_of_its_levels_is_not_shown(planned, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(page.tables, "NAMES", ("partial", "missing"))  # which shares three levels with it
    filled(planned("missing", seeds=(1,)))
    assert re.findall(r"^### (\w+ \w+)", page_text(tmp_path / "results.md"), re.MULTILINE) == ["Missing labels"]


def test_a_table_with_levels_is_shown_with_its_ordering_and_without_a_figure(planned, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(page.tables, "NAMES", ("5", "missing"))
    filled(planned("missing", seeds=(1,)))
    (section,) = (part for part in page_text(tmp_path / "results.md").split("### ") if part.startswith("Missing"))
    assert "| 10 % | 50 % | 90 % | single | mean |" in section
    assert "* DualCoOp (modified) > DualCoOp (modified) without attention: mean " in section
    assert "![" not in section
