"""A user's own images and labels in every format, trained and tested by one command each."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import load_config
from datasets.records import DataError
from engine import cli
from engine.run import newest_run
from engine.state import load_state
from model import RAM, ModelError

ROOT = Path(__file__).parent.parent

CUSTOM = Path(__file__).parents[1] / "configs" / "custom.yml"
TINY = [
    "MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random", "MODEL.DEPTH_VISION", "(1,2)",
    "MODEL.DEPTH_TEXT", "(1,2)", "MODEL.SAA_LAYER", "(3,-1)", "INPUT.SIZE_TRAIN", "(32,32)", "INPUT.SIZE_TEST",
    "(32,32)", "INPUT.PADDING", "2", "SOLVER.MAX_EPOCHS", "2", "SOLVER.IMS_PER_BATCH", "4", "DEVICE", "cpu",
    "DATALOADER.NUM_WORKERS", "0",
]  # fmt: skip
ROWS = {f"bild{i} ä.jpg": ["cat", "dog", "sofa"][: 1 + i % 3] + ["couch"] * (i % 4 == 3) for i in range(30)}
CLASSES = ["cat", "couch", "dog", "sofa"]


def results_of(run):
    """The newest results of a run's test images."""
    return json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]


def csv_list(root):
    lines = [f"{name},{';'.join(labels)}" for name, labels in ROWS.items()]
    (root / "my.csv").write_text("\n".join(["image,labels", *lines]), encoding="utf-8")
    return "my.csv"


def csv_columns(root):
    lines = [",".join([name, *(str(int(c in labels)) for c in CLASSES)]) for name, labels in ROWS.items()]
    (root / "my.csv").write_text("\n".join([",".join(["file", *CLASSES]), *lines]), encoding="utf-8")
    return "my.csv"


def release_json(root):
    (root / "my.json").write_text(json.dumps({"images": list(map(list, ROWS.items())), "classes": CLASSES}))
    return "my.json"


def coco(root):
    content = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(ROWS)],
        "categories": [{"id": 3 * k, "name": name} for k, name in enumerate(CLASSES)],
        "annotations": [{"id": 10 * i + k, "image_id": i, "category_id": 3 * CLASSES.index(label)}
                        for i, labels in enumerate(ROWS.values()) for k, label in enumerate(labels)],
    }  # fmt: skip
    (root / "instances_my.json").write_text(json.dumps(content))
    return "instances_my.json"


def voc(root):
    (root / "my" / "Annotations").mkdir(parents=True)
    (root / "pictures").rename(root / "my" / "JPEGImages")
    (root / "pictures").mkdir()
    for name, labels in ROWS.items():
        objects = "".join(f"<object><name>{label}</name><difficult>0</difficult></object>" for label in labels)
        text = f"<annotation><filename>{name}</filename>{objects}</annotation>"
        (root / "my" / "Annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")
    return "my"


def text_files(root):
    for name, labels in ROWS.items():
        (root / "pictures" / f"{Path(name).stem}.txt").write_text("\n".join(labels))
    return "pictures"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i, name in enumerate(ROWS):
        Image.fromarray(np.full((20, 30, 3), 8 * i, np.uint8)).save(tmp_path / "pictures" / name)
    return tmp_path


@pytest.fixture
def call(monkeypatch, root):
    """Runs a script on configs/custom.yml with small towers; gives the exit code."""

    def call(script, *overrides, options=()):
        keys = ["DATASETS.ROOT_DIR", str(root), "DATASETS.IMAGE_DIR", "pictures", "OUTPUT_DIR", str(root / "runs")]
        line = ["x.py", "--config_file", str(CUSTOM), *options, *TINY, *keys, *overrides]
        monkeypatch.setattr(sys, "argv", line)
        return cli.run(script.main)

    return call


@pytest.mark.parametrize("make", [csv_list, csv_columns, release_json, coco, voc, text_files])
def test_one_command_trains_and_one_tests(call, root, train_script, test_script, capsys, make):
    overrides = ("DATASETS.TRAIN", make(root), "DATASETS.UNSEEN", "('couch',)", "DATASETS.TEST_FRACTION", "0.3",
                 "DATASETS.VAL_FRACTION", "0.1")  # fmt: skip
    assert call(train_script, *overrides) == 0
    (run,) = (root / "runs").iterdir()
    assert load_state(run / "checkpoint.pth").step > 0
    assert (run / "best.pth").is_file()
    said = capsys.readouterr().out
    assert "3 validation, 9 test images; 3 seen and 1 unseen labels" in said
    assert "of 18 training images have an unseen label and are left out" in said
    assert call(test_script, *overrides) == 0
    assert set(results_of(run)["RAM"]) == {"ZSL", "GZSL"}


def test_names_of_files_may_hold_whatever_a_disk_takes(call, root, train_script, test_script):
    strange = ("two\nlines.jpg", " blanks  within.jpg", os.fsdecode(b"no text \xff.jpg"), "comma, 'quote' ö.jpg")
    for old, new in zip(ROWS, strange, strict=False):
        (root / "pictures" / old).rename(root / "pictures" / new)
    for image in (root / "pictures").glob("*.jpg"):
        image.with_suffix(".txt").write_text(("cat", "dog")[len(image.name) % 2])
    overrides = ("DATASETS.TRAIN", "pictures", "DATASETS.CHOOSE", "none", "DATASETS.TEST", "pictures")
    before = sorted((root / "pictures").iterdir())
    assert call(train_script, *overrides, "SOLVER.MAX_EPOCHS", "1") == 0
    assert call(test_script, *overrides, "TEST.SAVE_SCORES", "True") == 0
    assert sorted((root / "pictures").iterdir()) == before  # which may be read only
    (run,) = (root / "runs").iterdir()
    assert results_of(run)["RAM"]["GZSL"]["images"] == len(ROWS)


def test_all_labels_may_be_seen_and_then_there_is_one_protocol(call, root, train_script, test_script):
    overrides = ("DATASETS.TRAIN", csv_list(root), "DATASETS.CHOOSE", "none")
    assert call(train_script, *overrides) == 0
    assert call(test_script, *overrides) == 0
    (run,) = (root / "runs").iterdir()
    assert set(results_of(run)["RAM (EMA)"]) == {"GZSL"}


@pytest.fixture
def with_texts(call, root, train_script):
    """A run whose labels have texts of their own."""
    (root / "labels.json").write_text('{"sofa": {"synonyms": ["couch"], "prompt": "A piece of furniture."}}')
    overrides = ("DATASETS.TRAIN", csv_list(root), "DATASETS.CHOOSE", "none", "DATASETS.LABELS", "labels.json")
    assert call(train_script, *overrides) == 0
    return overrides


def test_a_checkpoint_holds_the_texts_of_labels_and_synonyms_are_one_label(with_texts, root):  # noqa: ARG001
    (run,) = (root / "runs").iterdir()
    state = load_state(run / "checkpoint.pth")
    assert state.seen == ["cat", "dog", "sofa"]
    assert state.texts == {"sofa": "A piece of furniture."}


@pytest.mark.filterwarnings("always")
def test_other_texts_of_labels_stop_a_resumed_training_and_are_told_in_a_test(
    with_texts, call, root, train_script, test_script, capsys
):
    (root / "labels.json").write_text('{"sofa": {"synonyms": ["couch"], "name": "settee"}}')
    assert call(train_script, *with_texts, options=["--resume", "auto"]) == 2
    assert "other texts of labels: DATASETS.LABELS has changed" in capsys.readouterr().err
    assert call(test_script, *with_texts) == 0
    assert "the labels had other texts in training" in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_testing_with_another_cut_than_in_training_is_told(call, root, train_script, test_script, capsys):
    overrides = ("DATASETS.TRAIN", csv_list(root), "DATASETS.CHOOSE", "none")
    assert call(train_script, *overrides) == 0
    assert call(test_script, *overrides) == 0
    assert "trained on" not in capsys.readouterr().err
    assert call(test_script, *overrides, "DATASETS.SPLIT_SEED", "3") == 0
    assert "test images may have been trained on" in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_a_list_that_changed_stops_a_resumed_training_and_is_told_in_a_test(
    call, root, train_script, test_script, capsys
):
    overrides = ("DATASETS.TRAIN", csv_list(root), "DATASETS.CHOOSE", "none")
    assert call(train_script, *overrides) == 0
    (root / "my.csv").write_text((root / "my.csv").read_text().replace("cat;dog", "dog"))
    assert call(train_script, *overrides, options=["--resume", "auto"]) == 2
    assert "was trained on other images or labels: the training list has changed" in capsys.readouterr().err
    assert call(test_script, *overrides) == 0
    assert "test images may have been trained on" in capsys.readouterr().err


@pytest.mark.filterwarnings("always")
def test_a_folder_that_moved_is_still_the_same(call, root, train_script, test_script, capsys):
    assert call(train_script, "DATASETS.TRAIN", voc(root), "DATASETS.CHOOSE", "none") == 0
    (root / "my").rename(root / "moved")
    moved = ("DATASETS.TRAIN", "moved", "DATASETS.CHOOSE", "none")
    assert call(test_script, *moved) == 0
    assert "trained on" not in capsys.readouterr().err


def test_a_label_that_is_not_there_is_one_line_and_leaves_no_run(call, root, train_script, capsys):
    assert call(train_script, "DATASETS.TRAIN", csv_list(root), "DATASETS.UNSEEN", "('cuoch',)") == 2
    assert "has no label 'cuoch'; did you mean 'couch'?" in capsys.readouterr().err
    assert not (root / "runs").exists()


PARTLY_KNOWN = "image,cat,dog,sofa\n" + "".join(f"{i}.png,1,0,{'-1' if i == 3 else i % 2}\n" for i in range(8))


@pytest.fixture
def partly_known(tmp_path):
    """Configuration of a list in which a label of one image is not known."""
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40), (20 * i, 0, 0)).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "a.csv").write_text(PARTLY_KNOWN)
    (tmp_path / "whole.csv").write_text(PARTLY_KNOWN.replace("-1", "1"))

    def config(*more):
        keys = ("OUTPUT_DIR", tmp_path / "runs", "DATASETS.ROOT_DIR", tmp_path, "DATASETS.IMAGE_DIR", "pictures",
                "DATASETS.TRAIN", "a.csv", "DATASETS.VAL", "", "DATASETS.TEST", "whole.csv", "DATASETS.CHOOSE", "none",
                "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_EPOCHS", 1)  # fmt: skip
        return load_config(ROOT / "configs" / "tiny.yml", [*map(str, keys), *more])

    return config


def test_a_method_that_needs_every_label_says_so(partly_known, train_script, tmp_path, monkeypatch):
    monkeypatch.setattr(RAM, "takes_unknown", False)
    with pytest.raises(ModelError, match=r"MODEL\.METHOD ram needs every label .*a\.csv has some that are not known"):
        train_script.train(partly_known(), None)
    assert not (tmp_path / "runs").exists()


def test_metrics_need_every_label(partly_known, train_script):
    with pytest.raises(DataError, match=r"a\.csv: the metrics need every label of an image"):
        train_script.train(partly_known("DATASETS.TEST", "a.csv", "DATASETS.TRAIN", "whole.csv"), None)


@pytest.mark.filterwarnings("always")
def test_what_is_not_known_can_count_as_absent(partly_known, train_script, capsys):
    train_script.train(partly_known("DATASETS.UNKNOWN", "absent"), None)
    assert "1 labels that are not known count as absent" in capsys.readouterr().out


def test_a_method_for_missing_labels_gets_minus_one(partly_known, train_script, monkeypatch):
    seen = []
    losses = RAM.losses

    def record(self, output, targets):
        seen.append(targets.clone())
        return losses(self, output, targets)

    monkeypatch.setattr(RAM, "losses", record)
    train_script.train(partly_known(), None)
    values, counts = torch.cat(seen).unique(return_counts=True)
    assert values.tolist() == [-1, 0, 1]
    assert counts[0] == 1


@pytest.mark.parametrize(("method", "loss"), [("coop", "loss_global"), ("dualcoop", "loss_asl")])
def test_other_methods_train_on_labels_that_are_not_known(partly_known, train_script, tmp_path, method, loss):
    train_script.train(partly_known("MODEL.METHOD", method, "MODEL.LOSS_WEIGHT", "0.01"), None)
    (run,) = (tmp_path / "runs").iterdir()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all(line[loss] > 0 for line in lines if line["kind"] == "train")


def test_missing_images_stop_a_training_or_are_left_out_and_counted(partly_known, train_script, tmp_path, capsys):
    (tmp_path / "pictures" / "5.png").unlink()
    whole = ("DATASETS.TRAIN", "whole.csv")
    with pytest.raises(DataError, match=r"no image '5\.png' below"):
        train_script.train(partly_known(*whole), None)
    train_script.train(partly_known(*whole, "DATASETS.SKIP_MISSING", "true"), None)
    assert "images that are not there are left out: 1 ('5.png')" in capsys.readouterr().out
    (run,) = (tmp_path / "runs").iterdir()
    about = json.loads((run / "test" / "epoch-1" / "results.json").read_text())["about"]
    assert about["lists"]["GZSL"]["images"] == 7


def test_merged_labels_keep_their_texts_and_may_be_named_in_either_spelling(partly_known, train_script, tmp_path):
    (tmp_path / "whole.csv").write_text("image,labels\n" + "".join(
        f"{i}.png,{('Dog', 'dog', 'cat', 'Dog|sun')[i % 4]}\n" for i in range(8)))  # fmt: skip
    (tmp_path / "labels.json").write_text('{"dog": {"prompt": "A photo of a hound."}}')
    keys = ("DATASETS.TRAIN", "whole.csv", "DATASETS.LABELS", "labels.json", "DATASETS.MERGE_CASE", "true",
            "DATASETS.UNSEEN", "cat", "DATASETS.SEEN", "dog,sun", "SOLVER.IMS_PER_BATCH", "2")  # fmt: skip
    run = train_script.Run(partly_known(*keys))
    assert run.texts == {"Dog": "A photo of a hound."}
    assert run.vocabulary.seen == ("Dog", "sun")
