import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import load_config
from datasets import build_test, build_train, shapes
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
    assert (protocols["ZSL"].names, protocols["GZSL"].names) == (vocabulary.unseen, vocabulary.all)
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
    sources = ["DATASETS.IMAGE_DIR", "", "DATASETS.TRAIN", "shapes:train", "DATASETS.VAL", "shapes:val"]
    vocabulary, protocols = build_test(config("", *sources), "val")
    assert (len(vocabulary.seen), len(vocabulary.unseen)) == (48, 17)
    assert next(iter(protocols["ZSL"].loader)).images.shape == (2, 3, 6, 10)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["DATASETS.ROOT_DIR", "/no/such/folder"], r"/no/such/folder.*DATASETS\.ROOT_DIR"),
        (["DATASETS.IMAGE_DIR", "no_such"], r"no_such.*DATASETS\.IMAGE_DIR"),
        (["DATASETS.TRAIN", "other.json"], r"other\.json.*DATASETS\.ROOT_DIR"),
        (["DATASETS.TEST", ""], r"DATASETS\.TEST"),
        (["DATASETS.SUBSET", "-1"], r"DATASETS\.SUBSET is -1"),
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
