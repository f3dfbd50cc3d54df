import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import load_config
from datasets import build_splits, build_test, build_train, shapes
from datasets.records import DataError

IMAGES = {"train": 6, "test": 5, "val": 4}


@pytest.fixture
def root(tmp_path):
    """A data set with foreign paths: seen labels a and B, unseen labels c, D and x, which VAL does not know."""
    rng = np.random.default_rng(0)
    for split, count in IMAGES.items():
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(
                tmp_path / "pictures" / split / f"{split}{i}.png"
            )
    write(tmp_path, "train", [["a"], ["a", "B"], [], ["B", "B"], ["a"], []], ["a", "B"])
    write(tmp_path, "test", [["a"], ["c"], ["a", "D"], [], ["x", "c"]], ["x", "c", "a", "D", "B"])
    write(tmp_path, "val", [["D"], ["a"], ["B"], ["c", "c"]], ["a", "B", "c", "D"])
    return tmp_path


def write(root, split, labels, classes, name=None):
    images = [[f"/mnt/nas/somewhere/all/{split}{i}.png", names] for i, names in enumerate(labels)]
    (root / f"{name or split}.json").write_text(json.dumps({"images": images, "classes": classes}))


def config(root, *overrides):
    values = {
        "DATASETS.ROOT_DIR": root, "DATASETS.IMAGE_DIR": "pictures", "DATASETS.TRAIN": "train.json",
        "DATASETS.TEST": "test.json", "DATASETS.VAL": "val.json", "DATALOADER.NUM_WORKERS": 0,
        "INPUT.SIZE_TRAIN": (8, 8), "INPUT.SIZE_TEST": (6, 10), "SOLVER.IMS_PER_BATCH": 2, "TEST.IMS_PER_BATCH": 2,
    }  # fmt: skip
    return load_config(None, [str(part) for pair in values.items() for part in pair] + [str(o) for o in overrides])


def collected(loader):
    """Targets by file name."""
    return {
        Path(path).stem: row for batch in loader for path, row in zip(batch.paths, batch.targets.tolist(), strict=True)
    }


def test_importing_the_package_loads_no_library():
    code = (
        "import sys, datasets; print([m for m in ('torch', 'torchvision', 'numpy', 'PIL', 'yacs') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parents[2])  # fmt: skip
    assert found.stdout.strip() == "[]"


def test_training_targets_are_over_the_seen_labels_and_images_without_any_stay_in(root):
    vocabulary, loader = build_train(config(root))
    assert vocabulary == (("B", "a"), ("D", "c", "x"))
    assert collected(loader) == {
        "train0": [0, 1], "train1": [1, 1], "train2": [0, 0], "train3": [1, 0], "train4": [0, 1], "train5": [0, 0],
    }  # fmt: skip


def test_training_images_have_the_training_size(root):
    _, loader = build_train(config(root, "INPUT.SIZE_TRAIN", (4, 12)))
    assert next(iter(loader)).images.shape == (2, 3, 4, 12)


def test_where_the_device_augments_batches_are_resized_images_and_what_the_data_set_makes_of_them(root):
    settings = ("INPUT.SIZE_TRAIN", (4, 12), "INPUT.PIXEL_MEAN", (9, 9, 9), "DATALOADER.AUGMENT_ON")
    _, loader = build_train(config(root, *settings, "device"))
    batch = next(iter(loader))
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (2, 3, 4, 12))
    found = loader.dataset.augment(batch.images, batch.plan)
    assert (found.dtype, found.shape) == (torch.float32, (2, 3, 4, 12))
    assert found.median() < -10  # normalised
    dataset = build_train(config(root, *settings, "workers")).loader.dataset
    assert (dataset.augment, dataset[1, 0].drawn) == (None, None)


@pytest.mark.parametrize("where", ["workers", "device"])
def test_without_augmentation_training_images_are_made_as_test_images_are(root, where):
    sizes = ("INPUT.SIZE_TRAIN", (4, 12), "INPUT.SIZE_TEST", (4, 12), "INPUT.AUGMENT", False)
    dataset = build_train(config(root, *sizes, "DATALOADER.AUGMENT_ON", where)).loader.dataset
    transform = build_test(config(root, *sizes), "test").protocols["GZSL"].loader.dataset.transform
    image, _ = dataset.opened(dataset.records.images[0])
    assert torch.equal(dataset[1, 0].image, transform(image))
    assert torch.equal(dataset[2, 0].image, transform(image))
    assert dataset.augment is None


def test_the_seed_decides_order_and_augmentation(root):
    def first(seed):
        return next(iter(build_train(config(root, "SOLVER.SEED", seed)).loader)).images

    assert first(1).equal(first(1))
    assert not first(1).equal(first(2))


@pytest.mark.parametrize(("reshuffle", "orders"), [(True, 5), (False, 1)])
def test_reshuffling_is_a_key(root, reshuffle, orders):
    _, loader = build_train(config(root, "DATALOADER.RESHUFFLE", reshuffle))
    found = set()
    for epoch in range(1, 6):
        loader.set_position(epoch)
        found.add(tuple(path for batch in loader for path in batch.paths))
    assert len(found) == orders


def test_a_subset_is_the_first_images_of_the_list(root):
    _, loader = build_train(config(root, "DATASETS.SUBSET", 4))
    assert sorted(collected(loader)) == ["train0", "train1", "train2", "train3"]


def test_zsl_is_the_images_with_an_unseen_label_and_gzsl_is_all(root):
    vocabulary, protocols = build_test(config(root), "test")
    assert (protocols["ZSL"].labels, protocols["GZSL"].labels) == (vocabulary.unseen, vocabulary.all)
    assert collected(protocols["ZSL"].loader) == {"test1": [0, 1, 0], "test2": [1, 0, 0], "test4": [0, 1, 1]}


def test_gzsl_asks_all_images_for_all_labels_seen_ones_first(root):
    write(root, "test", [["a"], ["c"], ["a", "D"], [], ["B", "c"]], ["c", "a", "D", "B"])
    _, protocols = build_test(config(root), "test")
    assert collected(protocols["GZSL"].loader) == {
        "test0": [0, 1, 0, 0], "test1": [0, 0, 0, 1], "test2": [0, 1, 1, 0], "test3": [0, 0, 0, 0],
        "test4": [1, 0, 0, 1],
    }  # fmt: skip


@pytest.fixture
def root_with_zsl(root):
    write(root, "test", [["D"], ["c"], []], ["D", "c"], name="zsl")
    return root


def test_a_list_of_unseen_labels_decides_what_is_unseen_and_on_which_images(root_with_zsl):
    vocabulary, protocols = build_test(config(root_with_zsl, "DATASETS.TEST_ZSL", "zsl.json"), "test")
    assert vocabulary == (("B", "a"), ("D", "c"))  # x is in neither
    assert collected(protocols["ZSL"].loader) == {"test0": [1, 0], "test1": [0, 1], "test2": [0, 0]}


def test_validation_uses_its_own_images_even_with_a_list_of_unseen_labels(root_with_zsl):
    _, protocols = build_test(config(root_with_zsl, "DATASETS.TEST_ZSL", "zsl.json"), "val")
    assert collected(protocols["ZSL"].loader) == {"val0": [1, 0], "val3": [0, 1]}
    assert len(collected(protocols["GZSL"].loader)) == IMAGES["val"]


def test_testing_does_without_the_training_list_if_the_unseen_labels_are_listed(root_with_zsl):
    (root_with_zsl / "train.json").unlink()
    vocabulary, _ = build_test(config(root_with_zsl, "DATASETS.TEST_ZSL", "zsl.json"), "test")
    assert vocabulary == (("B", "a", "x"), ("D", "c"))


def test_testing_without_both_lists_names_the_missing_file(root):
    (root / "train.json").unlink()
    with pytest.raises(DataError, match=r"train\.json"):
        build_test(config(root), "test")


def test_a_broken_training_list_is_an_error_even_if_it_is_not_needed(root_with_zsl):
    (root_with_zsl / "train.json").write_text("{")
    with pytest.raises(DataError, match="broken JSON"):
        build_test(config(root_with_zsl, "DATASETS.TEST_ZSL", "zsl.json"), "test")


def test_test_images_have_the_test_size(root):
    _, protocols = build_test(config(root), "test")
    assert next(iter(protocols["GZSL"].loader)).images.shape == (2, 3, 6, 10)


def test_skipping_broken_images_is_a_key(root):
    (root / "pictures" / "test" / "test2.png").unlink()
    _, protocols = build_test(config(root, "DATALOADER.SKIP_BROKEN", True), "test")
    assert len(collected(protocols["GZSL"].loader)) == IMAGES["test"] - 1
    assert [Path(path).name for path in protocols["GZSL"].loader.skipped] == ["test2.png"]


def test_a_home_folder_is_understood(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    _, protocols = build_test(config(root, "DATASETS.ROOT_DIR", f"~/{root.name}"), "test")
    assert len(collected(protocols["GZSL"].loader)) == IMAGES["test"]


@pytest.fixture
def small_shapes(monkeypatch):
    """The embedded world with few scenes."""
    for name, split in shapes.SPLITS.items():
        monkeypatch.setitem(shapes.SPLITS, name, split._replace(size=20))


@pytest.mark.usefixtures("small_shapes")
def test_shapes_need_no_folder():
    lists = [part for key in ("train", "val", "test") for part in (f"DATASETS.{key.upper()}", f"shapes:{key}")]
    sources = ["DATASETS.IMAGE_DIR", "", *lists]
    vocabulary, protocols = build_test(config("", *sources), "val")
    assert (len(vocabulary.seen), len(vocabulary.unseen)) == (48, 17)
    assert next(iter(protocols["ZSL"].loader)).images.shape == (2, 3, 6, 10)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["DATASETS.ROOT_DIR", "/no/such/folder"], r"/no/such/folder.*DATASETS\.ROOT_DIR"),
        (["DATASETS.IMAGE_DIR", "no_such"], r"no_such.*DATASETS\.IMAGE_DIR"),
        (["DATASETS.TRAIN", "other.json"], r"other\.json.*DATASETS\.ROOT_DIR"),
        (["DATASETS.TRAIN", ""], r"DATASETS\.TRAIN is empty"),
        (["DATASETS.TEST", ""], r"DATASETS\.TEST"),
        (["DATASETS.SUBSET", "1"], r"SOLVER\.IMS_PER_BATCH is 2"),
    ],
)
def test_training_data_that_cannot_be_built_names_the_key(root, overrides, said):
    with pytest.raises(DataError, match=said):
        build_train(config(root, *overrides))


@pytest.mark.parametrize(
    ("overrides", "split", "said"),
    [
        (["DATASETS.VAL", ""], "val", r"DATASETS\.VAL is empty"),
        (["DATASETS.TEST", ""], "test", r"DATASETS\.TEST is empty"),
        ([], "train", r"no split 'train'.*TEST\.SPLIT.*test, val"),
    ],
)
def test_test_data_that_cannot_be_built_names_the_key(root, overrides, split, said):
    with pytest.raises(DataError, match=said):
        build_test(config(root, *overrides), split)


@pytest.fixture
def own(tmp_path):
    """Forty pictures and a table: a on all but two, b on 20, c on 10, d on 5."""
    (tmp_path / "pictures").mkdir()
    rows = ["image,labels"]
    for i in range(40):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / "pictures" / f"p{i}.png")
        rows.append(f"p{i}.png,{'|'.join('abcd'[k] for k, n in enumerate((38, 20, 10, 5)) if (i * 7) % 40 < n)}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    return tmp_path


def own_config(own, *overrides):
    lists = ["DATASETS.TRAIN", "own.csv", "DATASETS.TEST", "", "DATASETS.VAL", "", "DATASETS.TEST_FRACTION", "0.25"]
    return config(own, *lists, "DATASETS.CHOOSE", "frequent", "DATASETS.UNSEEN_FRACTION", "0.5", *overrides)


def test_one_table_gives_training_validation_and_test_images_of_its_own(own):
    splits = build_splits(own_config(own, "DATASETS.VAL_FRACTION", "0.1"))
    assert splits.vocabulary == (("a", "b"), ("c", "d"))
    parts = [set(records.images) for records in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in parts[1:]] == [4, 10]
    assert len(set.union(*parts)) == sum(map(len, parts)) <= 40


def test_training_and_testing_agree_on_the_cut(own):
    cfg = own_config(own)
    train, test = build_train(cfg).loader, build_test(cfg, "test").protocols["GZSL"].loader
    assert not set(train.dataset.records.images) & set(test.dataset.records.images)
    assert set(train.dataset.records.images) == set(build_splits(cfg).train.images)


def test_named_labels_may_come_from_a_file_below_the_root(own):
    (own / "unseen.txt").write_text("b\nd\n")
    assert build_splits(own_config(own, "DATASETS.UNSEEN", "('unseen.txt',)")).vocabulary == (("a", "c"), ("b", "d"))


def test_with_all_labels_seen_there_is_no_zsl(own):
    vocabulary, protocols = build_test(own_config(own, "DATASETS.CHOOSE", "none"), "test")
    assert protocols.keys() == {"GZSL"}
    assert protocols["GZSL"].labels == vocabulary.seen == ("a", "b", "c", "d")


def test_a_test_without_any_image_of_an_unseen_label_is_an_error(own):
    (own / "test.csv").write_text("image,labels\np0.png,a|b\n")
    with pytest.raises(DataError, match="no image to evaluate has any of the 2 labels"):
        build_test(own_config(own, "DATASETS.TEST", "test.csv"), "test")


def test_validation_images_cut_from_a_benchmarks_training_list_have_no_zsl(root):
    cfg = config(root, "DATASETS.VAL", "", "DATASETS.VAL_FRACTION", "0.34")
    vocabulary, protocols = build_test(cfg, "val")
    assert protocols.keys() == {"GZSL"}
    assert protocols["GZSL"].labels == vocabulary.all
    assert len(protocols["GZSL"].loader.dataset) == 2
    assert len(build_splits(cfg).train.images) == 4


def test_synonyms_and_texts_of_labels_come_from_a_file(own):
    (own / "labels.json").write_text(json.dumps({"a": {"synonyms": ["b"], "name": "letter"}, "z": {}}))
    splits = build_splits(own_config(own, "DATASETS.LABELS", "labels.json"))
    assert splits.vocabulary.all == ("a", "c", "d")
    assert splits.texts == {"a": "A photo of a letter."}
    assert splits.notes[-1] == "labels.json: 'z' neither seen nor unseen here"


def test_a_label_file_may_lie_elsewhere(own, monkeypatch):
    (own / "here").mkdir()
    (own / "here" / "l.json").write_text('{"a": {"prompt": "One."}}')
    monkeypatch.chdir(own / "here")
    assert build_splits(own_config(own, "DATASETS.LABELS", "l.json")).texts == {"a": "One."}


def test_the_separator_is_a_key(own):
    (own / "own.csv").write_text("image,labels\n" + "".join(f"p{i}.png,a&b|c\n" for i in range(8)))
    cfg = own_config(own, "DATASETS.SEPARATOR", "&", "DATASETS.CHOOSE", "none")
    assert build_splits(cfg).vocabulary.seen == ("a", "b|c")


@pytest.mark.parametrize("rotation", [True, False])
def test_turning_photographs_upright_is_a_key(root, rotation):
    stored = Image.fromarray(np.uint8([[0, 255], [0, 255]]).repeat(8, 0).repeat(8, 1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned clockwise, which brings the white right side to the bottom
    for i in range(IMAGES["test"]):
        stored.save(root / "pictures" / "test" / f"test{i}.png", exif=exif)
    cfg = config(root, "INPUT.EXIF_ROTATION", rotation, "INPUT.SIZE_TEST", (2, 2))
    image = next(iter(build_test(cfg, "test").protocols["GZSL"].loader)).images[0, 0]
    white_below, white_on_the_right = image[0, 0] < image[1, 0], image[0, 0] < image[0, 1]
    assert (white_below.item(), white_on_the_right.item()) == (rotation, not rotation)


@pytest.mark.parametrize(
    ("part", "count", "build"),  # three of the test images have an unseen label
    [("train", 6, build_train), ("test", 3, lambda cfg: build_test(cfg, "test"))],
    ids=["train", "test"],
)
def test_missing_images_are_told_before_anything_runs(root, part, count, build):
    for i in (1, 2):
        (root / "pictures" / part / f"{part}{i}.png").unlink()
    with pytest.raises(DataError, match=rf"^2 of {count} images are missing"):
        build(config(root))


def test_a_cut_without_unseen_labels_leaves_zsl_out(own):
    seed = next(s for s in range(99) if not {"p0.png", "p23.png", "p6.png", "p29.png", "p12.png"} & set(
        build_splits(own_config(own, "DATASETS.SPLIT_SEED", s)).test.images))  # fmt: skip
    cfg = own_config(own, "DATASETS.SPLIT_SEED", seed, "DATASETS.UNSEEN", "d")
    assert build_test(cfg, "test").protocols.keys() == {"GZSL"}
    assert "there is no ZSL" in build_splits(cfg).notes[-1]
