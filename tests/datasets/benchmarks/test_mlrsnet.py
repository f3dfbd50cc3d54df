import hashlib
import json
from pathlib import Path

import pytest

from datasets.benchmarks import mlrsnet
from datasets.benchmarks.downloads import Downloads
from datasets.benchmarks.mlrsnet_tables import CATEGORIES
from datasets.labels import read_labels
from datasets.records import DataError, MissingFileError

ROOT = Path(__file__).parents[3]
RELEASED = ROOT.parent / "shared" / "data" / "release_json"
CLASSES = mlrsnet.CLASSES
SEEN, UNSEEN = CLASSES[:40], CLASSES[40:]
# The columns of desert are in another order, as in the official file: by position, desert reads as airplane.
DESERT = ("desert", *(name for name in CLASSES if name != "desert"))
LABELS = {"storage_tank": ["buildings", "tanks"], "stadium": ["stadium", "trees"], "desert": ["desert"]}
EACH = 5  # images of a category


def name(category, number):
    return f"{category.replace('harbor_port', 'harbor&port')}_{number:05d}.jpg"


class Root:
    def __init__(self, path, folder="Labels"):
        self.path, self.folder = path, path / folder
        for category in CATEGORIES:
            self.table(category)

    def table(self, category, rows=None, columns=None, file=None, header=None, one="1"):
        if rows is None:
            rows = [(name(category, i), LABELS.get(category, ["cars"])) for i in range(1, EACH + 1)]
        columns = columns or (DESERT if category == "desert" else CLASSES)
        shown = header or ["" if category == "storage_tank" and c == "snowberg" else c for c in columns]
        lines = [",".join(["image", *shown])]
        lines += [",".join([image, *(one if c in labels else "0" for c in columns)]) for image, labels in rows]
        path = self.folder / f"{file or category}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\r\n".join(lines) + "\r\n")
        return path

    def release(self, **lists):
        (self.path / "MLRSNet").mkdir(exist_ok=True)
        for key, (images, classes) in lists.items():
            text = json.dumps({"images": images, "classes": list(classes)})
            (self.path / "MLRSNet" / f"{key}.json").write_text(text)

    def prepare(self, released=None, seed=0, **options):
        return mlrsnet.prepare(Downloads(self.path, released), seed=seed, **options)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def by_image(records):
    return dict(zip(records.images, records.labels, strict=True))


def noted(lists, words):
    return [note for note in lists.notes if words in note]


def first(names, seed):
    """Of these names the first by SHA-256 of "seed:name"."""
    return min(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


@pytest.mark.parametrize("seed", [0, 3])
def test_a_fifth_of_every_category_is_drawn_by_the_seed(root, seed):
    lists = root.prepare(seed=seed)
    drawn = {f"Images/{c}/{first([name(c, i) for i in range(1, EACH + 1)], seed)}" for c in CATEGORIES}
    assert set(lists.test.images) == drawn
    assert len(lists.train.images) == (len(CATEGORIES) - 2) * (EACH - 1)  # without stadium and storage_tank: unseen
    assert (lists.origin["seed"], lists.origin["exact"]) == (seed, False)
    assert noted(lists, f"a fifth of every category is drawn with seed {seed} instead")


def test_the_fifth_is_rounded_down(root):
    root.table("beach", [(name("beach", i), ["sand"]) for i in range(1, 10)])
    lists = root.prepare()
    assert sum("/beach/" in image for image in lists.test.images) == 1


def test_training_records_are_exactly_these(root):
    root.table("beach", [(name("beach", 1), ["sand", "beach"]), (name("beach", 2), ["beach", "cars"])])
    labels = by_image(root.prepare().train)
    assert {image: row for image, row in labels.items() if "beach" in image} == {
        "Images/beach/beach_00002.jpg": ("beach", "cars")
    }


def test_the_last_labels_are_unseen(root):
    lists = root.prepare()
    assert (lists.train.classes, lists.test_zsl.classes) == (SEEN, UNSEEN)
    assert {row for row in lists.test_zsl.labels} == {("tanks",), ("stadium", "trees")}
    assert lists.origin["unseen"] == "last"


def test_unseen_labels_can_be_drawn(root):
    root.table("beach", [(name("beach", i), CLASSES[12 * (i - 1) : 12 * i]) for i in range(1, 6)])
    lists = root.prepare(unseen="random", seed=5)
    drawn = sorted(CLASSES, key=lambda label: hashlib.sha256(f"5:{label}".encode()).hexdigest())[:20]
    assert set(lists.test_zsl.classes) == set(drawn)
    assert (lists.origin["unseen"], lists.origin["seed"]) == ("random", 5)


def test_columns_are_read_by_the_header_of_each_file(root):
    labels = by_image(root.prepare().train)
    assert {row for image, row in labels.items() if "/desert/" in image} == {("desert",)}


def test_the_blank_header_is_snowberg(root):
    root.table("storage_tank", [(name("storage_tank", i), ["snowberg", "tanks"]) for i in range(1, 6)])
    assert ("snowberg", "tanks") in root.prepare().test.labels


def test_reading_by_position_is_there_and_says_that_it_is_the_mistake(root):
    lists = root.prepare(labels="positional")
    assert {row for image, row in by_image(lists.train).items() if "/desert/" in image} == {("airplane",)}
    assert lists.origin["labels"] == "positional"
    assert "the mistake of the released list" in lists.origin["rule"]
    assert noted(lists, "the labels are read by position, the mistake of the released list")


def test_reading_by_header_is_the_rule(root):
    lists = root.prepare()
    assert lists.origin["labels"] == "header"
    assert not noted(lists, "position")


def test_the_harbor_has_an_ampersand_in_its_file_names_only(root):
    (image,) = [image for image in root.prepare().test.images if "harbor" in image]
    assert image.startswith("Images/harbor_port/harbor&port_0000")


@pytest.mark.parametrize(("category", "spelling"), [("harbor_port", "harbor&port"), ("swimmimg_pool", "swimming_pool")])
def test_other_spellings_of_files_and_folders_are_found(root, category, spelling):
    (root.folder / f"{category}.csv").rename(root.folder / f"{spelling}.csv")
    (root.path / "Images" / spelling).mkdir(parents=True)
    assert any(image.startswith(f"Images/{spelling}/") for image in root.prepare().test.images)


@pytest.mark.parametrize("folder", ["labels", "MLRSNet/Labels"])
def test_other_folders_of_tables_are_found(tmp_path, folder):
    (tmp_path / "MLRSNet/Images/beach").mkdir(parents=True)
    lists = Root(tmp_path, folder).prepare()
    assert any(image.startswith("MLRSNet/Images/beach/beach_") for image in lists.train.images)
    assert any(image.startswith("Images/bridge/bridge_") for image in lists.train.images)
    assert f"{folder}/wetland.csv" in lists.origin["sources"]
    assert len(lists.origin["sources"]) == 46


def test_missing_tables_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"the folder of label tables is missing: no Labels or labels"):
        mlrsnet.prepare(Downloads(tmp_path), seed=0)


def test_a_missing_category_is_named(root):
    (root.folder / "swimmimg_pool.csv").unlink()
    missing = r"the label table of swimmimg_pool is missing: no Labels/swimmimg_pool\.csv or Labels/swimming_pool\.csv"
    with pytest.raises(MissingFileError, match=missing):
        root.prepare()


def test_files_of_no_category_are_told(root):
    root.table("zoo")
    assert noted(root.prepare(), "1 files in ")[0].endswith("belong to no category and are left out: 'zoo.csv'")


@pytest.mark.parametrize(("options", "value"), [({"labels": "both"}, "both"), ({"unseen": "first"}, "first")])
def test_an_unknown_choice_is_refused(root, options, value):
    with pytest.raises(ValueError, match=f"'{value}' is none of"):
        root.prepare(**options)


HEADERS = {
    "repeated": (["airport" if c == "airplane" else c for c in CLASSES], r"two columns are called 'airport'"),
    "unknown": (["aeroplane" if c == "airplane" else c for c in CLASSES], r"no column 'airplane'; .*'aeroplane'"),
    "blank elsewhere": (["" if c == "airplane" else c for c in CLASSES], r"no column 'airplane'; of no label: ''"),
    "blank besides": (["" if c == "snowberg" else c for c in DESERT[1:]] + ["x"], r"no column 'desert', 'snowberg'"),
}


@pytest.mark.parametrize(("header", "shown"), HEADERS.values(), ids=HEADERS)
def test_a_wrong_header_is_named(root, header, shown):
    root.table("beach", header=header)
    with pytest.raises(DataError, match=rf"beach\.csv, line 1: .*{shown}"):
        root.prepare()


@pytest.mark.parametrize("labels", ["header", "positional"])
def test_a_table_of_another_width_is_refused(root, labels):
    root.table("beach", columns=CLASSES[:-1])
    with pytest.raises(DataError, match=r"beach\.csv, line 1: 60 columns, expected 'image' and 60 labels$"):
        root.prepare(labels=labels)


def test_a_wrong_value_is_named_with_line_and_label(root):
    root.table("beach", one="7")
    with pytest.raises(DataError, match=r"beach\.csv, line 2, label 'cars': '7' is not 0 or 1$"):
        root.prepare()


def test_13_labels_are_not_too_many(root):
    root.table("beach", [(name("beach", 1), CLASSES[:13])])
    assert CLASSES[:13] in root.prepare().train.labels


def test_the_corrupted_version_is_recognised_by_14_labels(root):
    root.table("parkway", [(name("parkway", 1), ["cars"]), (name("parkway", 2), CLASSES[:14])])
    message = r"parkway\.csv, line 3: 'Images/parkway/parkway_00002\.jpg' has 14 labels, .* more than 13: .* 54457eb"
    with pytest.raises(DataError, match=message):
        root.prepare()


@pytest.mark.parametrize(("category", "label"), [("storage_tank", "tanks"), ("stadium", "stadium")])
def test_the_corrupted_version_is_recognised_by_categories_without_their_label(root, category, label):
    root.table(category, [(name(category, i), ["cars"]) for i in range(1, 6)])
    message = rf"{category}\.csv: none of 5 images has the label '{label}': .* 54457eb .* Mendeley"
    with pytest.raises(DataError, match=message):
        root.prepare()


RELEASED_TEST = [
    ["/mnt/x/Images/storage_tank/storage_tank_00002.jpg", ["tanks", "buildings"]],
    ["/mnt/x/Images/desert/desert_00004.jpg", ["airplane"]],
    ["/mnt/x/Images/harbor_port/harbor&port_00001.jpg", ["cars"]],
]


def test_a_released_list_gives_the_test_images_and_the_header_their_labels(root):
    root.release(test=(RELEASED_TEST, CLASSES))
    lists = root.prepare()
    assert by_image(lists.test) == {
        RELEASED_TEST[0][0]: ("buildings", "tanks"),
        RELEASED_TEST[1][0]: ("desert",),
        RELEASED_TEST[2][0]: ("cars",),
    }
    assert noted(lists, "1 of 3 images of")
    assert (lists.origin["exact"], lists.origin["labels"]) == (False, "header")


def test_by_position_a_released_list_has_its_own_labels(root):
    root.release(test=(RELEASED_TEST, CLASSES))
    lists = root.prepare(labels="positional")
    assert by_image(lists.test) == {image: tuple(row) for image, row in RELEASED_TEST}
    assert noted(lists, "0 of 3 images of")
    assert lists.origin["seed"] is None


@pytest.mark.parametrize("unseen", ["last", "random"])
def test_unseen_labels_of_our_choice_are_not_exact(root, unseen):
    root.table("beach", [(name("beach", i), CLASSES[12 * (i - 1) : 12 * i]) for i in range(1, 6)])
    root.release(test=([*RELEASED_TEST, ["x/beach_00001.jpg", CLASSES[:12]]], CLASSES))
    assert root.prepare(labels="positional", unseen=unseen).origin["exact"] is False


def test_test_images_of_the_released_list_are_not_trained_on(root):
    root.release(test=(RELEASED_TEST, CLASSES))
    files = {image.rpartition("/")[2] for image in root.prepare().train.images}
    assert "desert_00003.jpg" in files
    assert files.isdisjoint(image.rpartition("/")[2] for image, _ in RELEASED_TEST)


def test_an_image_without_a_label_stays_in_a_released_list(root):
    root.table("beach", [(name("beach", 1), [])])
    root.release(test=([*RELEASED_TEST, ["x/beach_00001.jpg", []]], CLASSES))
    assert by_image(root.prepare().test)["x/beach_00001.jpg"] == ()


def test_a_released_image_that_no_table_has_is_named(root):
    root.release(test=([*RELEASED_TEST, ["x/beach_00099.jpg", ["cars"]]], CLASSES))
    with pytest.raises(DataError, match=r"test\.json: 1 images are not in .*Labels: 'x/beach_00099\.jpg'$"):
        root.prepare()


def test_a_released_training_list_of_all_labels_is_filtered_by_the_rule(root):
    train = [["x/desert_00001.jpg", ["airplane"]], ["x/stadium_00001.jpg", ["stadium"]]]
    root.release(train=(train, CLASSES), test=(RELEASED_TEST, CLASSES))
    assert by_image(root.prepare().train) == {"x/desert_00001.jpg": ("desert",)}
    assert by_image(root.prepare(labels="positional").train) == {"x/desert_00001.jpg": ("airplane",)}


def test_a_released_training_list_of_the_seen_labels_is_taken_as_it_is(root):
    train = [["x/desert_00001.jpg", ["trees"]], ["x/desert_00002.jpg", []]]
    root.release(train=(train, CLASSES[20:]), test=([*RELEASED_TEST, ["x/desert_00005.jpg", ["airplane"]]], CLASSES))
    lists = root.prepare(labels="positional")
    assert by_image(lists.train) == {image: tuple(row) for image, row in train}
    assert (lists.train.classes, lists.test_zsl.classes) == (CLASSES[20:], CLASSES[:20])
    assert (lists.origin["unseen"], lists.origin["exact"]) == ("released", True)
    assert noted(lists, "train.json is taken as it is, with labels that the authors read by position")


def test_a_released_training_list_without_its_test_list_is_refused(root):
    root.release(train=([["x/desert_00001.jpg", ["trees"]]], CLASSES))
    with pytest.raises(MissingFileError, match=r"train\.json: the authors' training list needs their test\.json"):
        root.prepare()


def test_released_lists_without_tables_are_taken_with_a_warning(tmp_path):
    root = Root(tmp_path)
    root.folder.rename(tmp_path / "elsewhere")
    root.release(train=([["x/beach_00001.jpg", ["cars"]]], CLASSES), test=(RELEASED_TEST, CLASSES))
    lists = root.prepare()
    assert by_image(lists.test) == {image: tuple(row) for image, row in RELEASED_TEST}
    assert by_image(lists.train) == {"x/beach_00001.jpg": ("cars",)}
    assert noted(lists, "there are no label tables")
    assert (lists.origin["labels"], lists.origin["exact"]) == ("positional", False)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_real_test_list_goes_through_unchanged(tmp_path):
    content = json.loads((RELEASED / "MLRSNet/test.json").read_text())
    root = Root(tmp_path)
    rows = {category: [] for category in CATEGORIES}
    for image, row in content["images"]:
        rows[image.split("/")[-2]].append((image.split("/")[-1], row))
    for category, images in rows.items():
        root.table(category, [(name(category, 99999), ["cars"]), *images], columns=CLASSES)
    lists = root.prepare(RELEASED, labels="positional")
    assert list(lists.test.images) == [image for image, _ in content["images"]]
    assert [list(row) for row in lists.test.labels] == [row for _, row in content["images"]]
    assert noted(lists, "0 of 21,823 images of")
    assert len(lists.train.images) == 46


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released annotation files are not here")
def test_the_categories_are_those_of_the_real_list():
    content = json.loads((RELEASED / "MLRSNet/test.json").read_text())
    assert {image.split("/")[-2] for image, _ in content["images"]} == set(CATEGORIES)
    assert tuple(content["classes"]) == CLASSES


def test_prompt_names_are_of_labels_and_distinct():
    notes = read_labels(ROOT / "configs/labels/mlrsnet.json", "A photo of a {}.")
    assert notes.texts == {"habor": "A photo of a harbor."}
    assert set(notes.texts) <= set(CLASSES)
