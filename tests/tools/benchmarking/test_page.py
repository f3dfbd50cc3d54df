"""The page of all measurements."""

import re
from pathlib import Path

import pytest

from tools.benchmarking import files, page
from tools.benchmarking.measuring import Measurement
from tools.benchmarking.page import page_text, write_page

COMMITTED = Path(__file__).parents[3] / "docs" / "performance.md"
FACTS = {
    "python": "3", "torch": "2", "open_clip_torch": "4", "commit": "0123456789abcdef", "dirty": True, "cpu": "a CPU",
    "cpu_count": 2, "threads": 2, "gpus": ["a GPU"],
}  # fmt: skip
ABOUT = {
    "command": "python tools/benchmark.py solver", "date": "2026-01-01", "device": "cpu", "load": 0.1, "seconds": 90,
    "environment": FACTS,
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Writes a file of measurements below the page; gives the page's path."""

    def make(name="cpu", what="loader", at=None, **about):
        (tmp_path / "performance").mkdir(exist_ok=True)
        rows = [{"what": what, **Measurement("case, by labels", "time", "s", [1.0], at).row()}]
        files.write(tmp_path / "performance" / f"{name}.json", {**ABOUT, **about}, rows)
        return tmp_path / "performance.md"

    return make


def test_every_file_is_a_section_with_machine_versions_and_command(write):
    text = page_text(write())
    assert re.findall(r"^##+ (.*)$", text, re.MULTILINE) == ["a CPU, 2 threads", "The data loader"]
    assert "`python tools/benchmark.py solver --json docs/performance/cpu.json`, 2026-01-01, 1.5 minutes." in text
    assert "Python 3, torch 2, open_clip 4, commit 0123456789, with changes. 2 cores." in text
    assert "| case, by labels | time | 1 s | 1 | 1 |" in text


def test_other_programs_are_mentioned(write):
    assert "on which other programs ran (load 3.5)" in page_text(write(load=3.5))


def test_what_was_measured_on_no_gpu_is_said(write):
    assert "Not measured: GPUs." in page_text(write())
    text = page_text(write("gpu", device="cuda"))
    assert "Not measured" not in text
    assert "## a GPU, 2 threads" in text


def test_remarks_are_taken_over(write):
    path = write()
    (path.parent / "performance" / "notes").mkdir()
    for name in ("head", "cpu", "cpu-loader"):
        (path.parent / "performance" / "notes" / f"{name}.md").write_text(f"About *{name}*.\n")
    text = page_text(path)
    order = ("# Performance", "*head*", "## a CPU", "*cpu*", "### The data loader", "| case", "*cpu-loader*")
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_the_page_is_written_with_its_figure(write):
    path = write(what="growth", at=10)
    write_page(path)
    assert path.read_text() == page_text(path)
    (link,) = re.findall(r"\]\((figures/[^)]+)\)", path.read_text())
    assert (path.parent / link).read_bytes().startswith(b"\x89PNG")


def test_without_files_there_is_a_head_alone(tmp_path):
    assert page_text(tmp_path / "performance.md") == f"{page.HEAD}\n\nNot measured: GPUs.\n"


@pytest.mark.skipif(not COMMITTED.is_file(), reason="there is no page of measurements")
def test_the_committed_page_is_what_the_command_makes():
    assert COMMITTED.read_text() == page_text(COMMITTED)
    for link in re.findall(r"\]\((figures/[^)]+)\)", COMMITTED.read_text()):
        assert (COMMITTED.parent / link).is_file()
