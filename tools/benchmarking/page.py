"""The page docs/performance.md: made from the files of measurements in the folder `performance` beside it.

What people have to say stands in `performance/notes/NAME.md` and is taken over as it is, below the head (NAME is
`head`), a file (its name) or a table (`FILE-WHAT`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.atomic import atomic_write, make_folder
from tools.benchmarking.files import Run, collect
from tools.benchmarking.sections import markdown, section

__all__ = ["HEAD", "page_text", "write_page"]

FOLDER, NOTES, FIGURES = "performance", "notes", Path("figures") / "performance"
TITLES = {
    "machine": "The machine", "train": "A training step", "evaluate": "Evaluation", "image": "One image",
    "labels": "Encoding labels", "solver": "The solver", "loader": "The data loader",
    "parts": "Where the time of a training step goes", "tagger": "The tagger", "growth": "How cost grows",
    "emoji": "Drawn concepts, 925 and 1,006 labels, a trained CLIP",
}  # fmt: skip
HEAD = """# Performance

Made by `python tools/benchmark.py --write docs/performance.md` from the files in `docs/performance/`, not by hand; each
section names the command that measures it again. ViT-B/16 with random weights, whose speed is that of trained ones.

* **Time** is the median by the clock, with the extremes. What stands beside is measured in turn with it. **Times as
  fast** is the median of the ratios of each round, by the clock and by the processor's time of all threads, which other
  programs on the machine change less.
* **Plain reference** (`tools/benchmarking/reference.py`): the same model from its equations, nothing shared between
  student and teacher, texts of 77 tokens encoded for every batch, Sinkhorn on the whole batch with a transposed copy in
  every iteration. Its scores, losses and gradients are those of this code to 1e-4 (a test). Where it stands "from 8 and
  200 labels", its time is on the line through what these two take: a little less than all labels together would take.
* **Of the matrix rate**: the operations that the result needs at the least (`tools/benchmarking/floor.py`) per second,
  over what the machine reaches when it multiplies large matrices, measured in turn too.
* **Memory** is the peak of a call above what was held before it.
* **At least** is what `python tools/benchmark.py` asks for: it names the row and ends with code 1 where less is
  reached."""
"""The text above the first file."""


def page_text(page: Path) -> str:
    """The page as it has to be, in Markdown.

    Args:
        page: its file, which need not be there.

    Raises:
        BenchmarkError: if a file in the folder holds no measurements.
    """
    runs, notes = collect(page.parent / FOLDER), page.parent / FOLDER / NOTES
    parts = [HEAD, *_note(notes, "head")]
    if not any(run.about["device"] == "cuda" for run in runs.values()):
        parts.append("Not measured: GPUs.")
    for name, run in runs.items():
        parts += [f"## {title(run)}", origin(run, name), *_note(notes, name)]
        for what in run.what:
            parts += [
                f"### {TITLES[what]}",
                markdown(section(what, run)),
                *_figure(what, name),
                *_note(notes, f"{name}-{what}"),
            ]
    return "\n\n".join(parts) + "\n"


def write_page(page: Path) -> None:
    """Writes the page and its figures.

    Raises:
        BenchmarkError: as `page_text`.
        WriteError: if the system refuses.
    """
    text = page_text(page)
    for name, run in collect(page.parent / FOLDER).items():
        if run.of("growth"):
            from tools.benchmarking.picture import growth_figure  # matplotlib takes a second to import

            make_folder(page.parent / FIGURES)
            with atomic_write(page.parent / FIGURES / f"{name}.png") as file:
                growth_figure(run).savefig(file, dpi=110, format="png", metadata={"Software": None})
    with atomic_write(page, "w") as file:
        file.write(text)


def title(run: Run) -> str:
    """The hardware."""
    facts: Mapping[str, Any] = run.about["environment"]
    hardware = ", ".join(facts["gpus"]) if run.about["device"] == "cuda" else facts["cpu"]
    return f"{hardware}, {facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"


def origin(run: Run, name: str) -> str:
    """Command, versions and circumstances."""
    about, facts = run.about, run.about["environment"]
    versions = f"Python {facts['python']}, torch {facts['torch']}, open_clip {facts['open_clip_torch']}"
    took = f"{about['seconds'] / 60:.1f} minutes"
    said = f"`{about['command']} --json docs/performance/{name}.json`, {about['date']}, {took}. {versions}, commit "
    said += f"{str(facts['commit'])[:10]}{', with changes' if facts['dirty'] else ''}. {facts['cpu_count']} cores"
    if run.is_busy:
        said += f", on which other programs ran (load {about['load']}): what is by processor time says more"
    return f"{said}."


def _figure(what: str, name: str) -> Iterator[str]:
    if what == "growth":
        yield f"![{TITLES[what]}]({(FIGURES / name).as_posix()}.png)"


def _note(notes: Path, name: str) -> Iterator[str]:
    """What somebody wrote, if there is such a file."""
    file = notes / f"{name}.md"
    if file.is_file():
        yield file.read_text(encoding="utf-8").strip()
