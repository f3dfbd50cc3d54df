"""NUS-WIDE with 925 seen and 81 unseen labels (paper, Table 1), from the official tables.

Seen labels are the 1000 tags that are not concepts, unseen ones the 81 concepts, which people labelled. The paper's
numbers are on images that were downloaded again, the lists of ROLE (Cole et al. 2021); other papers have the official
split with every test image (LESA).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from datasets.benchmarks import nus_role
from datasets.benchmarks.downloads import Downloads, Progress, plain
from datasets.benchmarks.lists import Lists, open_vocabulary
from datasets.benchmarks.nus_photos import PhotoIndex, photos_on_disk, scan
from datasets.benchmarks.nus_tables import CONCEPTS, SEEN, find_names, need_names, read_part
from datasets.records import DataError, Records, first_few, notes_of
from datasets.splits import restrict

__all__ = ["SPLITS", "TEST_IMAGES", "prepare"]

SPLITS = ("auto", "role", "official")
TEST_IMAGES = ("labelled", "all")
RELEASED = {
    "train": "train_925_filtered.json",
    "test": "test_1006_filtered.json",
    "test_zsl": "test_81_filtered.json",
}
IMAGE_FOLDERS = ("Flickr", "images/Flickr", "images", "Images", "image")
ROLE_TRAIN, ROLE_ZSL = 143_528, 46_848  # images with a seen label, with an unseen one
OFFICIAL_NOTE = (
    "the images are those of the official split; the paper's numbers are on those of ROLE's lists "
    "(formatted_train_images.npy, formatted_val_images.npy) and not comparable"
)
RULES = {
    "released": "the authors' lists",
    "role": "images of ROLE's lists with the labels of the official tables",
    "official": "TrainImagelist.txt and TestImagelist.txt",
}


class Classes(NamedTuple):
    """Names of the 925 seen and the 81 unseen labels, in the order of the lists they were read from."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def prepare(
    downloads: Downloads,
    *,
    seed: int,  # noqa: ARG001 - as every benchmark; nothing is drawn here
    split: str = "auto",
    test_images: str = "labelled",
    progress: Progress = plain,
) -> Lists:
    """The lists of NUS-WIDE 925/81.

    Training images have at least one of the 925 tags, whatever their concepts. The authors' lists are taken as they
    are, each one that is there. Paths are those of the files below the root where there is a folder of images, by
    either scheme of file names; else, and for photos that are not there, as `Flickr/actor/0001_2124494179.jpg`.

    Args:
        downloads: with `ImageList`, `NUS_WID_Tags`, `Groundtruth` and `ConceptsList`, or what is in them.
        seed: not used.
        split: "official"; "role", for which `formatted_{train,val}_images.npy` are in the root or in `role`; "auto":
            the latter if they are there.
        test_images: "labelled": those with at least one of the labels; "all": every one in both test lists (LESA).
        progress: shows the progress.

    Raises:
        ValueError: if there is no such split or choice of test images.
        MissingFileError: if a file is needed and not there.
        DataError: if a file is not what its name says.
    """
    for value, choices in ((split, SPLITS), (test_images, TEST_IMAGES)):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    released = {key: records for key, name in RELEASED.items() if (records := downloads.released(name)) is not None}
    classes = _classes(downloads, released)
    wanted = [key for key in ("train", "test") if key not in released]
    split = _split(downloads, split, wanted)
    made = _made(downloads, split, wanted, progress)
    lists = {**made.lists, **released}
    result = open_vocabulary(
        restrict(lists["train"], classes.seen, drop_empty=False),
        lists["test"],
        *classes,
        keep_empty=test_images == "all",
        released=released,
        origin={},
        notes=made.notes + notes_of(lists.values()),
    )
    return _described(result, split, test_images, released, downloads.checksums())


def _described(
    lists: Lists, split: str, test_images: str, released: Mapping[str, Records], sources: Mapping[str, str]
) -> Lists:
    """The lists with their origin."""
    exact = {"test", "test_zsl"} <= released.keys()
    notes = lists.notes
    assert lists.test_zsl is not None  # there are unseen labels
    if split == "role" and test_images == "labelled":
        counted, expected = (len(lists.train.images), len(lists.test_zsl.images)), (ROLE_TRAIN, ROLE_ZSL)
        exact = exact or counted[1] == ROLE_ZSL
        counts = "{:,} and {:,}"
        notes = (
            *notes,
            f"ROLE's lists have {counts.format(*counted)} images with a seen and with an unseen label in training and "
            f"test; those of the paper have {counts.format(*expected)}",
        )
    given = ", ".join(RELEASED[key] for key in RELEASED if key in released)
    origin = {
        "benchmark": "nus",
        "split": split,
        "rule": f"training images have one of the 925 tags; {RULES[split]}{f', but for {given}' if given else ''}",
        "test_images": test_images,
        "exact": exact,
        "sources": sources,
    }
    return lists._replace(origin=origin, notes=notes)


def _classes(downloads: Downloads, released: Mapping[str, Records]) -> Classes:
    """From the official lists of names or, if nothing else is needed, from the authors' lists."""
    names = find_names(downloads) if {"train", "test"} <= released.keys() else need_names(downloads)
    if names is None:
        seen = released["train"].classes
        classes = Classes(seen, tuple(name for name in released["test"].classes if name not in set(seen)))
    else:
        classes = Classes(names.seen, names.concepts)
    if (len(classes.seen), len(classes.unseen)) != (SEEN, CONCEPTS):
        raise DataError(
            f"{released['train'].source} has {len(classes.seen):,} classes and {released['test'].source} "
            f"{len(classes.unseen):,} further ones, expected {SEEN} and {CONCEPTS}"
        )
    expected = {"train": classes.seen, "test": classes.seen + classes.unseen, "test_zsl": classes.unseen}
    for key, records in released.items():
        if wrong := set(records.classes) ^ set(expected[key]):
            raise DataError(
                f"{records.source}: its classes are not the {len(expected[key]):,} expected: {first_few(wrong)}"
            )
    return classes


def _split(downloads: Downloads, split: str, wanted: Sequence[str]) -> str:
    """What the lists that the authors' do not give are made from."""
    if not wanted:
        return "released"
    if split != "auto":
        return split
    return "role" if all(nus_role.find_list(downloads, key) for key in wanted) else "official"


class Made(NamedTuple):
    """The lists that the authors' do not give, by key (`train`, `test`), and what there is to tell of them."""

    lists: Mapping[str, Records]
    notes: tuple[str, ...]


def _made(downloads: Downloads, split: str, wanted: Sequence[str], progress: Progress) -> Made:
    """The wanted lists with all images that they may have."""
    if split == "released":
        return Made({}, ())
    names = need_names(downloads)
    if split == "official":
        parts = {"train": "Train", "test": "Test"}
        lists = {k: read_part(downloads, parts[k], names, progress, with_concepts=k == "test") for k in wanted}
        notes: tuple[str, ...] = (OFFICIAL_NOTE,)
    else:
        files = {key: nus_role.need_list(downloads, key) for key in wanted}
        everything = [read_part(downloads, part, names, progress, with_concepts=True) for part in ("Train", "Test")]
        lists, notes = nus_role.joined(files, *everything)
    folder = next((folder for folder in IMAGE_FOLDERS if (downloads.root / folder).is_dir()), None)
    files_there = [] if folder is None else scan(downloads.root, folder, progress)
    located = {key: _located(records, files_there) for key, records in lists.items()}
    if folder is not None:
        for key, (records, missing) in located.items():
            notes = (*notes, f"{missing:,} of {len(records.images):,} {key} images are not in {folder}/")
    return Made({key: records for key, (records, _) in located.items()}, notes)


def _located(records: Records, files: Sequence[str]) -> tuple[Records, int]:
    """The records with the paths of the files, and how many have none."""
    photos = photos_on_disk(PhotoIndex(records.images), files)
    images = tuple(photos.get(row, f"Flickr/{image}") for row, image in enumerate(records.images))
    return records._replace(images=images), len(images) - len(photos)
