"""What of a configuration's data is there, what is missing, and how it compares with what is published.

    python tools/check_data.py configs/coco.yml DATASETS.ROOT_DIR /data/coco

opens every image. Exit code 1 if something is absent that training needs, 2 for a mistake in the command.
"""

import csv
import io
import multiprocessing
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from tqdm import tqdm
from yacs.config import CfgNode

from configs import load_config
from datasets import build_splits, image_folder
from datasets.annotations import read_records
from datasets.benchmarks.published import BY_NAME, Published, compared
from datasets.compose import Splits
from datasets.formats.release import checksum
from datasets.images import locate, open_image, open_truncated
from datasets.records import DataError, Records, first_few
from datasets.worlds import is_reference
from engine import cli
from engine.atomic import WriteError, atomic_write
from engine.results import aligned

KEYS = {"train": "TRAIN", "val": "VAL", "test": "TEST", "test_zsl": "TEST_ZSL"}
CHUNK = 64  # images that a process is given at a time
SHOWN = 10  # problems of a kind that are printed one by one


class Problem(NamedTuple):
    """An image that cannot be used: `kind` is "missing", "unreadable" or "truncated"."""

    image: str
    kind: str
    message: str


def files_of(cfg: CfgNode) -> tuple[dict[str, Records], list[str]]:
    """The lists as their files hold them, and what is wrong with those that cannot be read."""
    root, lists, wrong = str(Path(cfg.DATASETS.ROOT_DIR).expanduser()), {}, []
    for name, key in KEYS.items():
        if cfg.DATASETS[key] or name == "train":
            try:
                lists[name] = read_records(
                    cfg.DATASETS[key], root, separator=cfg.DATASETS.SEPARATOR,
                    empty_is_unknown=cfg.DATASETS.EMPTY_CELL == "unknown",
                )  # fmt: skip
            except DataError as error:
                wrong.append(f"{name}: {error}")
    return lists, wrong


def image_problems(
    images: Iterable[str], folder: str, *, decode: bool, truncated: bool, most_pixels: int, workers: int
) -> dict[str, Problem]:
    """Images that are missing or, with `decode`, unreadable, by their name in the lists.

    With `truncated`, files that are cut short are readable: a problem of a kind of their own.
    """
    wanted = [
        (image, folder, decode, truncated, most_pixels) for image in dict.fromkeys(images) if not is_reference(image)
    ]
    with ExitStack() as stack:
        checked: Iterable[Problem | None] = map(_image_problem, wanted)
        if workers > 1 and len(wanted) > CHUNK:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            checked = pool.imap_unordered(_image_problem, wanted, chunksize=CHUNK)
        bar = tqdm(checked, total=len(wanted), desc="images", unit="image", smoothing=0.05, disable=not wanted)
        return {problem.image: problem for problem in bar if problem is not None}


def _image_problem(job: tuple[str, str, bool, bool, int]) -> Problem | None:
    image, folder, decode, truncated, most_pixels = job
    try:
        locate(image, folder)
    except DataError as error:
        return Problem(image, "missing", str(error))
    try:
        if decode:
            open_image(image, folder, most_pixels=most_pixels)
    except DataError as error:
        in_part = truncated and _opens_in_part(image, folder, most_pixels)
        return Problem(image, "truncated" if in_part else "unreadable", str(error))
    return None


def _opens_in_part(image: str, folder: str, most_pixels: int) -> bool:
    try:
        open_truncated(image, folder, most_pixels=most_pixels)
    except DataError:
        return False
    return True


def table(lists: dict[str, Records], published: Published | None, problems: dict[str, Problem], decode: bool) -> str:
    """A row for each list."""
    head = ["list", "images", "published", "labels", "labels/image", "no label", "labels without image", "missing"]
    rows = [[*head, "unreadable"]]
    for name, records in lists.items():
        count = len(records.images)
        kinds = [problems[image].kind for image in records.images if image in problems]
        rows.append([
            name, f"{count:,}", compared(getattr(published, name, None), count),
            f"{len(records.classes):,}", f"{sum(map(len, records.labels)) / max(count, 1):.3f}",
            f"{sum(not row for row in records.labels):,}", f"{len(without_image(records)):,}",
            f"{kinds.count('missing'):,}", f"{kinds.count('unreadable'):,}" if decode else "not checked",
        ])  # fmt: skip
    return aligned(rows, left=1)


def without_image(records: Records) -> set[str]:
    """Classes that no image of the list has."""
    return set(records.classes) - {label for row in records.labels for label in row}


def remarks(splits: Splits, files: dict[str, Records], lists: dict[str, Records], known: Published | None) -> list[str]:
    """What a reader of results should know, but training can live with."""
    said = [f"labels: {len(splits.vocabulary.seen)} seen, {len(splits.vocabulary.unseen)} unseen"]
    if known:
        said[0] += f"; published: {known.seen} seen, {known.unseen} unseen"
    for name, records in lists.items():
        if lacking := without_image(records):
            said.append(f"{name}: no image has {first_few(lacking)}")
    for name, records in files.items():
        if "checksum" in records.origin and records.origin["checksum"] != checksum(records):
            said.append(f"{name}: {records.source} was changed after prepare_data.py wrote it")
        if name == "train" and "rule" in records.origin:
            said.append(f"origin: {records.origin['rule']}")
        if name == "test" and not records.origin.get("exact", True):
            said.append("test images, their labels or the choice of seen labels are not known to be the paper's")
    return [*said, *splits.notes]


def shown(problems: dict[str, Problem]) -> list[str]:
    """The first problems of each kind and how many more there are."""
    lines = []
    for kind in ("missing", "unreadable"):
        messages = [problem.message for problem in problems.values() if problem.kind == kind]
        lines += messages[:SHOWN]
        if len(messages) > SHOWN:
            lines.append(f"... and {len(messages) - SHOWN:,} more {kind} images; --report FILE lists them all")
    return lines


def check(cfg: CfgNode, *, decode: bool, report: Path | None) -> int:
    """Prints everything; 1 if something is absent that training needs, else 0."""
    print(f"{cfg.DATASETS.NAMES} in {cfg.DATASETS.ROOT_DIR or 'the current folder'}")
    files, wrong = files_of(cfg)
    problems: dict[str, Problem] = {}
    try:
        splits, folder = build_splits(cfg), image_folder(cfg)
    except DataError as error:
        wrong += [str(error)] if not any(str(error) in line for line in wrong) else []
    else:
        lists = {name: getattr(splits, name) for name in KEYS if getattr(splits, name) is not None}
        images = (image for records in lists.values() for image in records.images)
        workers = min(cfg.DATALOADER.NUM_WORKERS, multiprocessing.cpu_count())
        problems = image_problems(
            images, folder, decode=decode, truncated=cfg.DATALOADER.READ_TRUNCATED,
            most_pixels=cfg.INPUT.MAX_PIXELS, workers=workers,
        )  # fmt: skip
        known = BY_NAME.get(cfg.DATASETS.NAMES)
        print(table(lists, known, problems, decode))
        print("\n".join(remarks(splits, files, lists, known)))
        if short := [image for image, problem in problems.items() if problem.kind == "truncated"]:
            print(f"cut short, each used as far as it goes (DATALOADER.READ_TRUNCATED): {first_few(short)}")
        assert splits.train is not None  # only an evaluation does without
        if len(splits.train.images) < cfg.SOLVER.IMS_PER_BATCH:
            wrong.append(f"{len(splits.train.images)} training images are fewer than SOLVER.IMS_PER_BATCH")
    if report:
        write_report(report, problems)
    lines = [*wrong, *shown(problems)]
    print("\n".join(f"PROBLEM: {line}" for line in lines) if lines else "everything that training needs is there")
    return 1 if lines else 0


def write_report(path: Path, problems: dict[str, Problem]) -> None:
    """A CSV of all images with a problem."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Problem._fields, *problems.values()])
    with atomic_write(path, "w") as file:
        file.write(text.getvalue())


def main() -> int:
    """Reads the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("config", help="YAML in configs/")
    cli.add_overrides(parser, "DATASETS.ROOT_DIR DIR")
    parser.add_argument("--quick", action="store_true", help="only look whether the images are there")
    parser.add_argument("--report", type=Path, help="write all missing, unreadable and truncated images to this CSV")
    args = cli.read(parser)
    if args.report and not args.report.absolute().parent.is_dir():
        raise WriteError(f"--report {args.report}: there is no such folder")
    return check(load_config(args.config, args.opts), decode=not args.quick, report=args.report)


if __name__ == "__main__":
    sys.exit(cli.run(main))
