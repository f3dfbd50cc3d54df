"""Tags pictures: python predict.py PICTURES... [--labels "dog, cat, bus"] [--out tags.csv] [--maps DIR] [--html FILE].

Pictures are files, folders, patterns in quotes, - for a list of paths on stdin, or scenes such as shapes:test/17.
docs/predict.md shows the rest.
"""

import interrupts  # noqa: F401 - before all that takes long

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine import cli
from engine.run import resolve_device
from errors import UserError
from tagging import Tagger
from tagging.build import template
from tagging.inputs import Listed, files_of, find_pictures
from tagging.outputs import Output, open_output
from tagging.overlays import write_maps
from tagging.predictor import Prediction, Predictor, threshold_of
from tagging.progress import refused
from tagging.source import Source, find_source, identity, tagger_of
from tagging.spellings import Spellings, read_spellings, spelt_alike
from tagging.table import Printed, Table
from tools.search_images import search

TOP = 5  # labels of a picture where neither --top nor --threshold limits scores


class PredictError(UserError, ValueError):
    """Something that cannot be asked, or pictures of which none can be read."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = cli.parser(__doc__)
    made.add_argument("pictures", nargs="*", metavar="PICTURES", help="files, folders, patterns, - or shapes:test/17")
    made.add_argument("--index", metavar="DIR", help="in place of pictures: what tools/index_images.py made of them")
    made.add_argument("--search", metavar="LABEL", help="with --index: the --top pictures that most probably show it")
    made.add_argument("--out", help="write .csv, .json, .jsonl, .parquet, or a folder of .txt, in place of the table")
    made.add_argument("--maps", metavar="DIR", help="write where the labels are, a PNG for each label of a picture")
    made.add_argument("--html", metavar="FILE", help="write a page with the pictures and their labels")
    add_question(made)
    return made


def add_question(made: argparse.ArgumentParser) -> None:
    """Options that say what is asked of which model; `asked` completes them, `about` sums them up."""
    made.add_argument("--labels", help='"dog, cat", a .txt with one a line, or a .json; default: those of the training')
    made.add_argument("--threshold", help="a number, best (the default), or precision=0.9")
    made.add_argument("--top", type=int, metavar="K", help="at most so many labels a picture")
    made.add_argument(
        "--score", choices=("probability", "paper"), help="paper: the published score, which ranks a list"
    )
    made.add_argument("--run", "--weights", metavar="PATH", help="run, folder of runs, checkpoint or exported folder; "
                      "default: the newest run below runs/")  # fmt: skip
    made.add_argument("--config_file", help="YAML that names a CLIP to take as it is, without a run")
    made.add_argument("--clip_weights", help="where CLIP's weights are, if not where the configuration says")
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:<index> or mps")
    made.add_argument("--batch", type=int, default=32, help="pictures at once")


def asked(args: argparse.Namespace, source: Source) -> Spellings:
    """The labels of the command line, or those of the training; fills in what the kind of source decides."""
    for name in ("top", "batch"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise PredictError(f"--{name} is {value}: it has to be 1 or more")
    args.score = args.score or ("probability" if source.trained else "paper")
    if args.threshold is not None:
        args.threshold = threshold_of(args.threshold)
    elif args.score == "probability":
        args.threshold = "best"
    elif args.top is None:
        args.top = TOP
    if args.labels is None and not source.parts.seen:
        raise PredictError(f"{source.place} was trained on no labels: name some with --labels")
    return spelt_alike(source.parts.seen) if args.labels is None else read_spellings(
        args.labels, template(source.parts)
    )  # fmt: skip


def about(args: argparse.Namespace, source: Source, spellings: Spellings) -> dict[str, Any]:
    """What has to be the same for two answers to belong together, as plain values; of options that `asked` has seen."""
    return {
        "model": identity(source.parts) + ("" if source.trained else f" {args.clip_weights}"),
        "labels": [list(spellings.names), list(spellings.labels), dict(spellings.texts)],
        "threshold": args.threshold, "top": args.top, "score": args.score,
    }  # fmt: skip


def output_of(args: argparse.Namespace, pictures: Sequence[Listed], source: Source, spellings: Spellings) -> Output:
    """The file of --out, with what has to be the same to go on with it."""
    same = about(args, source, spellings) | {"maps": args.maps is not None}
    numbers = "probabilities" if args.score == "probability" else "scores"
    return open_output(args.out, pictures, spellings.labels, numbers=numbers, identity=same)


def predictions(
    args: argparse.Namespace, tagger: Tagger, predictor: Predictor, pictures: Sequence[Listed],
    output: Output | Printed, unreadable: list[str],
) -> Iterator[Prediction]:  # fmt: skip
    """What is not done yet, each once it is written; `unreadable` collects why pictures could not be read.

    Raises:
        PredictError: at the end, if none can be.
    """
    done = output.done if args.html is None else frozenset()  # a page holds all pictures
    todo = [one.picture for one in pictures if one.picture not in done]
    maps = {} if args.maps is None else files_of(pictures, Path(args.maps), "")
    with tqdm(total=len(pictures), initial=len(pictures) - len(todo), unit="picture", leave=False) as bar:
        for batch in predictor.batches(todo, args.batch):
            for one in batch.predictions if maps else ():
                write_maps(maps[one.picture], tagger.preparation.rgb(one.picture), one)
            output.add(batch.predictions)
            unreadable += batch.unreadable
            bar.update(len(batch.predictions) + len(batch.unreadable))
            yield from batch.predictions
    if len(unreadable) == len(pictures):
        more = f", and {len(unreadable) - 1:,} others likewise" if len(unreadable) > 1 else ""
        raise PredictError(f"no picture can be read: {unreadable[0]}{more}")


def write_html(page: str, answers: Iterator[Prediction], tagger: Tagger, title: str) -> None:
    """Writes the page."""
    from tagging.page import PageEntry, write_page

    with refused(Path(page)):
        Path(page).parent.mkdir(parents=True, exist_ok=True)
    entries = (
        PageEntry(one.picture, tagger.preparation.rgb(one.picture), one.labels, one.probabilities, one.maps)
        for one in answers
    )
    write_page(page, entries, title=title)


def counted(number: int, thing: str) -> str:
    """Such as "1 picture" or "1,200 pictures"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def predict(args: argparse.Namespace) -> int:
    """Answers for all pictures; 1 if some could not be read."""
    pictures = find_pictures(args.pictures, map(os.fsdecode, sys.stdin.buffer), without=args.maps)
    source = find_source(args.run, args.config_file)
    spellings = asked(args, source)
    with ExitStack() as stack:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        output: Output | Printed = Printed(Table([one.picture for one in pictures], width), sys.stdout)
        if args.out is not None:
            output = stack.enter_context(output_of(args, pictures, source, spellings))
        tagger = tagger_of(
            source, spellings, score=args.score, clip_weights=args.clip_weights, device=resolve_device(args.device)
        )
        predictor = Predictor(
            tagger, spellings, score=args.score, threshold=args.threshold, top=args.top,
            maps=args.maps is not None or (args.html is not None and args.score == "probability"),
        )  # fmt: skip
        title = f"{counted(len(pictures), 'picture')}, {counted(len(set(spellings.labels)), 'label')}"
        note = "" if args.score == "probability" else "; scores rank the labels of the list, they are no probabilities"
        print(f"{source.place}: {title}{note}", file=sys.stderr)
        unreadable: list[str] = []
        answers = predictions(args, tagger, predictor, pictures, output, unreadable)
        if args.html is not None:
            write_html(args.html, answers, tagger, title)
        for _ in answers:
            pass
        output.finish()
    for line in unreadable:
        print(f"left out: {line}", file=sys.stderr)
    if unreadable:
        print(f"{len(unreadable):,} of {counted(len(pictures), 'picture')} could not be read", file=sys.stderr)
    for written in filter(None, (args.out, args.maps, args.html)):
        print(f"written: {written}", file=sys.stderr)
    return 1 if unreadable else 0


def ask_index(args: argparse.Namespace) -> None:
    """Answers from an index, without its pictures.

    Raises:
        PredictError: for what an index cannot answer.
        CollectionError: if it is none, or of another tagger.
    """
    others = ("maps", "html", "score", "threshold", "config_file", "clip_weights")
    if wrong := [name for name in others if getattr(args, name) is not None]:
        raise PredictError(f"--{wrong[0]} needs the pictures themselves: leave --index out")
    if args.pictures or (args.search is None) == (args.labels is None):
        raise PredictError("--index answers without pictures, for --search LABEL or for --labels")
    search(args.index, args.search, args.labels, args.top, args.out, args.run, args.device)


def main() -> int:
    """Reads the command line; a reader of stdout that leaves early, such as head, is no error."""
    try:
        args = cli.read(parser())
        if args.index is not None:
            ask_index(args)
            return 0
        if args.search is not None:
            raise PredictError("--search needs --index DIR, made by tools/index_images.py")
        return predict(args)
    except BrokenPipeError:
        cli.give_up_stdout()
        return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
