"""Annotation lists of a benchmark from its official downloads.

    python tools/prepare_data.py coco --root /data/coco

reads what was unpacked below the root and writes train.json, test.json, test_zsl.json and, where there are official
validation images, val.json to ROOT/records.

    python tools/prepare_data.py voc2007 --root /data/VOCdevkit/VOC2007 --protocol partial

writes the lists of a protocol of missing labels to ROOT/records/partial. docs/data.md says where to get the downloads
and how to unpack them.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import interrupts  # noqa: F401 - before all that takes long

from tqdm import tqdm

from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.lists import Lists
from datasets.benchmarks.missing import protocols
from datasets.benchmarks.published import BY_NAME, Published, compared
from datasets.formats.release import dump
from datasets.images import locate
from datasets.records import DataError, Records
from engine import cli
from engine.atomic import atomic_write, make_folder
from engine.results import aligned

NAMES = {  # benchmark -> DATASETS.NAMES of its configuration
    "coco": "COCO_ZS", "nus": "NUS_ZS", "rap": "RAP_OV", "pa100k": "PA100K_OV", "multiscene": "MULTISCENE_OV",
    "mlrsnet": "MLRSNET_OV",
}  # fmt: skip
LISTS = ("train", "val", "test", "test_zsl")
COMMON = {"benchmark", "protocol", "root", "out", "released", "present", "seed"}  # what is not for the benchmark alone
OPEN = "open"  # the protocol of the paper: seen and unseen labels


def progress(items: Iterable[Any], text: str) -> Iterable[Any]:
    """A bar over what is gone through."""
    return tqdm(items, desc=text, leave=False, smoothing=0)


def present_only(lists: Lists, root: Path) -> Lists:
    """The lists without the images that are not on the disk; a note counts them."""
    kept, notes = {}, []
    for name in LISTS:
        records: Records | None = getattr(lists, name)
        if records is not None:
            there = [i for i, image in enumerate(progress(records.images, f"{name}: images")) if _exists(image, root)]
            kept[name] = records.rows(there)
            notes.append(f"{name}: {len(records.images) - len(there):,} images are not there and are left out")
            if not there:
                raise DataError(f"none of the images of the {name} list are below {root}: docs/data.md has the tree")
    exact = lists.origin["exact"] and all(len(kept[name].images) == len(getattr(lists, name).images) for name in kept)
    origin = {**lists.origin, "exact": exact, "present_only": True}
    return lists._replace(**kept, origin=origin, notes=(*lists.notes, *notes))


def _exists(image: str, root: Path) -> bool:
    try:
        locate(image, str(root))
    except DataError:
        return False
    return True


def write(lists: Lists, out: Path) -> dict[str, Path]:
    """Writes the lists, all of them or none, and gives their files.

    Raises:
        WriteError: if the system refuses.
    """
    make_folder(out)
    files = {name: out / f"{name}.json" for name in LISTS if getattr(lists, name) is not None}
    with ExitStack() as stack:
        opened = {name: stack.enter_context(atomic_write(path, "w")) for name, path in files.items()}
        for name, file in opened.items():
            records: Records = getattr(lists, name)
            file.write(dump(records._replace(origin={**lists.origin, "list": name})))
    return files


def as_published(lists: Lists, published: Published) -> bool:
    """Whether the test lists have the published sizes; without unseen labels, all lists."""
    names = ("test", "test_zsl") if published.unseen else LISTS
    pairs = ((getattr(lists, name), getattr(published, name)) for name in names)
    return all(size is None or size.agrees(len(records.images)) for records, size in pairs)


def summary(lists: Lists, published: Published) -> str:
    """A table of the lists beside the published sizes, and what was left out."""
    rows = [["list", "images", "published", "labels", "labels/image"]]
    for name in LISTS:
        records: Records | None = getattr(lists, name)
        if records is not None:
            density = sum(map(len, records.labels)) / len(records.images)
            count = len(records.images)
            said = compared(getattr(published, name, None), count)
            rows.append([name, f"{count:,}", said, str(len(records.classes)), f"{density:.3f}"])
    origin = f"rule: {lists.origin['rule']}"
    known = "" if lists.origin["exact"] else "NOT "
    what, whose = "test images, their labels and the choice of seen labels", "paper"
    if not published.unseen:
        what, whose = "images, labels and what is known of them", "protocol"
    exact = f"{what} are {known}known to be those of the {whose}"
    return "\n".join([aligned(rows, left=1), *lists.notes, origin, exact])


def prepare(arguments: argparse.Namespace) -> None:
    """Reads, writes and says what came of it."""
    downloads = Downloads(arguments.root, arguments.released)
    lists = lists_of(downloads, arguments)
    if arguments.released and not any(path.is_relative_to(arguments.released) for path in downloads.used.values()):
        raise DataError(f"{arguments.released} holds none of the authors' lists of {arguments.benchmark}")
    name = name_of(arguments)
    published = BY_NAME[name]
    lists = lists._replace(origin={**lists.origin, "exact": lists.origin["exact"] and as_published(lists, published)})
    if arguments.present:
        lists = present_only(lists, arguments.root)
    missing = arguments.protocol != OPEN
    out = arguments.out or arguments.root / "records" / (arguments.protocol if missing else "")
    files = write(lists, out)
    print(summary(lists, published))
    print(f"wrote {', '.join(path.name for path in files.values())} to {out}")
    values: dict[str, str | Path] = {"NAMES": name} if missing else {}
    values |= {"ROOT_DIR": arguments.root}
    if arguments.out:
        values |= {name.upper(): path.resolve() for name, path in files.items() if missing or name != "val"}
    keys = " ".join(f"DATASETS.{key} {shlex.quote(str(value))}" for key, value in values.items())
    config = f"configs/{f'missing/{arguments.protocol}' if missing else arguments.benchmark}.yml"
    print(f"next: python tools/check_data.py {config} {keys}")
    print(f"      python train.py --config_file {config} {keys}")


def lists_of(downloads: Downloads, arguments: argparse.Namespace) -> Lists:
    """The lists of the benchmark under the protocol."""
    options = {key: value for key, value in vars(arguments).items() if key not in COMMON}
    if arguments.protocol == OPEN:
        module = import_module(f"datasets.benchmarks.{arguments.benchmark}")
        seed = getattr(module, "SEED", 0) if arguments.seed is None else arguments.seed
        return module.prepare(downloads, seed=seed, progress=progress, **options)
    seed = protocols.SEED if arguments.seed is None else arguments.seed
    return protocols.prepare(
        downloads, benchmark=arguments.benchmark, protocol=arguments.protocol, seed=seed, progress=progress
    )  # fmt: skip


def name_of(arguments: argparse.Namespace) -> str:
    """DATASETS.NAMES of the benchmark under the protocol."""
    if arguments.protocol == OPEN:
        return NAMES[arguments.benchmark]
    return f"{arguments.benchmark}_{arguments.protocol}".upper()


def parser() -> argparse.ArgumentParser:
    """The command line: one sub-command for each benchmark."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", type=Path, required=True, help="folder that the downloads were unpacked in")
    common.add_argument("--out", type=Path, help="folder for the lists; default: ROOT/records")
    common.add_argument("--released", type=Path, help="folder of the authors' lists; default: ROOT, its annotations/ "
                        "and its json/")  # fmt: skip
    common.add_argument("--seed", type=int, help="of what is drawn; default: 0, for multiscene 117, largeloss 1200")
    common.add_argument("--present_only", dest="present", action="store_true", help="leave out missing images")
    main = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = main.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    of = {}
    for name in dict.fromkeys((*NAMES, *(benchmark for benchmark, _ in protocols.READERS))):
        is_open = name in NAMES
        choices = [*[OPEN] * is_open, *(p for p in protocols.PROTOCOLS if (name, p) in protocols.READERS)]
        what = f"for configs/{name}.yml" if is_open else f"for configs/missing/{choices[0]}.yml"
        of[name] = add.add_parser(name, parents=[common], help=what)
        of[name].add_argument("--protocol", choices=choices, default=choices[0], help=f"default: {choices[0]}")
    of["nus"].add_argument("--split", choices=("auto", "role", "official"), default="auto",
                           help="which images; auto: ROLE's lists (the paper's) if they are there")  # fmt: skip
    of["nus"].add_argument("--test_images", choices=("labelled", "all"), default="labelled",
                           help="all: keep test images without a label, as LESA, BiAM and MKT do")  # fmt: skip
    of["rap"].add_argument("--partition", type=int, choices=range(5), help="default: that of the released test list, "
                           "else 0")  # fmt: skip
    of["rap"].add_argument("--uncertain", choices=("positive", "negative"), default="positive",
                           help="what the code 2 counts as; default: positive, as in the release")  # fmt: skip
    of["rap"].add_argument("--skirts", choices=("mat", "merged"), default="mat",
                           help="merged: Skirt, Short Skirt and Dress are one, as in the released list")  # fmt: skip
    of["multiscene"].add_argument("--train_labels", choices=("auto", "noisy", "clean"), default="auto",
                                  help="which training set; auto: the noisy one if it is there")  # fmt: skip
    of["mlrsnet"].add_argument("--labels", choices=("header", "positional"), default="header",
                               help="positional: the wrong reading of the released test list")  # fmt: skip
    of["mlrsnet"].add_argument("--unseen", choices=("last", "random"), default="last",
                               help="the last 20 labels (11 K training images, as in the paper), or drawn")  # fmt: skip
    return main


if __name__ == "__main__":
    sys.exit(cli.run(lambda: prepare(parser().parse_args())))
