"""Preparing a benchmark from the command line; what each benchmark reads has tests of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import load_config
from datasets import build_splits
from datasets.annotations import read_records
from datasets.benchmarks import multiscene
from datasets.benchmarks.coco import SEEN, UNSEEN
from datasets.benchmarks.published import BY_NAME, Size
from datasets.formats.release import checksum
from datasets.shuffle import shuffled
from engine import cli
from tools import prepare_data

CONFIGS = Path(__file__).parents[2] / "configs"
CATEGORIES = [*SEEN, *UNSEEN, "teddy bear"]


def write_instances(folder, split, labels):
    images = [{"id": 7 + i, "file_name": f"COCO_{split}_{i:012d}.jpg"} for i in range(len(labels))]
    objects = [(7 + i, CATEGORIES.index(name) + 1) for i, names in enumerate(labels) for name in names]
    content = {
        "images": images,
        "annotations": [{"id": k, "image_id": i, "category_id": c} for k, (i, c) in enumerate(objects)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CATEGORIES)],
    }
    (folder / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    """A small MS-COCO with the authors' test list."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    train = [["person", "dog"], ["person", "person"], ["teddy bear"], ["car", "teddy bear"], ["person", "car"], []]
    write_instances(root / "annotations", "train2014", train)
    write_instances(root / "annotations", "val2014", [["dog"], ["person"], ["cat", "car"], []])
    paths = [f"/mnt/trainval2014/COCO_val2014_{i:012d}.jpg" for i in (0, 2)]
    released = {"images": [[paths[0], ["dog"]], [paths[1], ["cat", "car"]]], "classes": [*SEEN, *UNSEEN]}
    (root / "annotations" / "test_65_filtered.json").write_text(json.dumps(released))
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    sizes = BY_NAME["COCO_ZS"]._replace(test=Size(2, 2), test_zsl=Size(2, 2))  # those of `root`
    monkeypatch.setitem(BY_NAME, "COCO_ZS", sizes)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
        code = cli.run(lambda: prepare_data.prepare(prepare_data.parser().parse_args()))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_lists_are_those_of_the_rule_and_readable(run, root):
    assert run("coco", "--root", root)[0] == 0
    train, test, zsl = (read_records(f"records/{name}.json", str(root)) for name in ("train", "test", "test_zsl"))
    assert train.images == tuple(f"train2014/COCO_train2014_{i:012d}.jpg" for i in (1, 3, 4))
    assert train.labels == (("person",), ("car",), ("person", "car"))
    assert [len(records.classes) for records in (train, test, zsl)] == [48, 65, 17]
    assert zsl.labels == (("dog",), ("cat",))


def test_a_list_says_where_it_comes_from_with_checksums(run, root):
    run("coco", "--root", root)
    records = read_records("records/test.json", str(root))
    assert records.origin["list"] == "test"
    assert records.origin["exact"] is True
    assert len(records.origin["sources"]["annotations/instances_train2014.json"]) == 64
    assert records.origin["checksum"] == checksum(records)


def test_the_summary_compares_with_what_is_published(run, root):
    _, said, _ = run("coco", "--root", root)
    row = next(line for line in said.splitlines() if line.startswith("train "))
    assert row.split() == ["train", "3", "44,909", "DIFFERS", "48", "1.333"]
    assert "the choice of seen labels are known to be those of the paper" in said


def test_without_the_authors_list_the_summary_says_that_the_test_images_are_others(run, root):
    (root / "annotations" / "test_65_filtered.json").unlink()
    write_instances(root / "annotations", "val2014", [["dog", "person"]] * 20)
    code, said, _ = run("coco", "--root", root, "--seed", 4)
    assert code == 0
    assert "are NOT known to be those of the paper" in said
    assert "test_65_filtered.json" in said
    assert read_records("records/test.json", str(root)).origin["seed"] == 4


def test_lists_of_a_protocol_of_missing_labels_go_to_a_folder_of_their_own_and_train(run, root):
    code, said, _ = run("coco", "--root", root, "--protocol", "largeloss")
    assert code == 0
    assert "images, labels and what is known of them are NOT known to be those of the protocol" in said
    folder = root / "records" / "largeloss"
    assert sorted(path.name for path in folder.iterdir()) == ["test.json", "train.json", "val.json"]
    command = next(line for line in said.splitlines() if "train.py" in line).split()
    cfg = load_config(CONFIGS.parent / command[3], [*command[4:], "DATASETS.IMAGE_DIR", str(root)])
    assert cfg.DATASETS.NAMES == "COCO_LARGELOSS"
    splits = build_splits(cfg)
    assert len(splits.train.images) + len(splits.val.images) == 5  # the annotated ones
    assert not splits.vocabulary.unseen
    assert all(len(row) == 1 for row in splits.train.labels)


def test_a_benchmark_says_which_protocols_it_has(run, root):
    with pytest.raises(SystemExit):
        run("voc2007", "--root", root, "--protocol", "splc")


def test_the_authors_lists_may_lie_elsewhere(run, root, tmp_path):
    (tmp_path / "theirs").mkdir()
    (root / "annotations" / "test_65_filtered.json").rename(tmp_path / "theirs" / "test_65_filtered.json")
    _, said, _ = run("coco", "--root", root, "--released", tmp_path / "theirs")
    assert "are known to be those of the paper" in said


def test_test_lists_of_another_size_are_not_the_papers(run, root, monkeypatch):
    monkeypatch.setitem(BY_NAME, "COCO_ZS", BY_NAME["COCO_ZS"]._replace(test=Size(3, 3)))
    _, said, _ = run("coco", "--root", root)
    assert "are NOT known to be those of the paper" in said
    assert read_records("records/test.json", str(root)).origin["exact"] is False


def test_a_folder_of_released_lists_without_any_is_an_error(run, root, tmp_path):
    (tmp_path / "theirs").mkdir()
    code, _, error = run("coco", "--root", root, "--released", tmp_path / "theirs")
    assert code == 2
    assert "holds none of the authors' lists of coco" in error


def test_the_printed_commands_fit_the_configuration(run, root, tmp_path):
    _, said, _ = run("coco", "--root", root, "--out", tmp_path / "lists")
    words = said.splitlines()[-1].split()
    assert words[:4] == ["python", "train.py", "--config_file", "configs/coco.yml"]
    cfg = load_config(CONFIGS / "coco.yml", words[4:])
    found = [
        read_records(source, str(root)) for source in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.DATASETS.TEST_ZSL)
    ]
    assert [len(records.images) for records in found] == [3, 2, 2]


def test_images_that_are_not_there_are_left_out_if_asked_and_counted(run, root):
    for name in ("train2014/COCO_train2014_000000000003.jpg", "val2014/COCO_val2014_000000000000.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / name)
    _, said, _ = run("coco", "--root", root, "--present_only")
    assert read_records("records/train.json", str(root)).labels == (("car",),)
    assert "train: 2 images are not there and are left out" in said
    assert "are NOT known to be those of the paper" in said


def test_a_root_without_any_image_leaves_no_list(run, root):
    code, _, error = run("coco", "--root", root, "--present_only")
    assert code == 2
    assert error.endswith("docs/data.md has the tree\n")
    assert not (root / "records").exists()


def test_a_missing_download_is_one_line_and_code_2(run, root):
    (root / "annotations" / "instances_train2014.json").unlink()
    code, said, error = run("coco", "--root", root)
    assert (code, said) == (2, "")
    assert error.startswith("error: ")
    assert "instances_train2014.json" in error
    assert not (root / "records").exists()


def test_a_missing_root_is_one_line_and_code_2(run, tmp_path):
    code, _, error = run("coco", "--root", tmp_path / "none")
    assert (code, error) == (2, f"error: there is no folder {str(tmp_path / 'none')!r}\n")


def test_lists_are_written_all_or_none(run, root):
    (root / "records").mkdir()
    (root / "records" / "test.json").mkdir()  # cannot be replaced by a file
    code, _, error = run("coco", "--root", root)
    assert code == 2
    assert "test.json" in error
    assert [path.name for path in (root / "records").iterdir()] == ["test.json"]


def test_an_output_folder_that_cannot_be_made_is_one_line(run, root, tmp_path):
    (tmp_path / "file").touch()
    code, _, error = run("coco", "--root", root, "--out", tmp_path / "file" / "lists")
    assert code == 2
    assert "cannot make the folder" in error


@pytest.mark.parametrize("name", sorted(prepare_data.NAMES))
def test_every_benchmark_has_a_configuration_and_published_sizes(name):
    assert prepare_data.NAMES[name] == load_config(CONFIGS / f"{name}.yml").DATASETS.NAMES
    assert prepare_data.NAMES[name] in BY_NAME


@pytest.mark.parametrize(("arguments", "seed"), [([], multiscene.SEED), (["--seed", "0"], 0)])
def test_multiscene_has_a_seed_of_its_own(run, tmp_path, arguments, seed):
    names = list(multiscene.OFFICIAL)
    (tmp_path / "MultiScene-Clean").mkdir()
    for split, first in (("Tra", 1), ("Test", 101)):
        hot = [",".join(str(int(k == i)) for k in range(36)) for i in range(36)]
        rows = [f"img_{first + i},{row}" for i, row in enumerate(hot)]
        (tmp_path / "MultiScene-Clean" / f"{split}.csv").write_text("\n".join([f"image,{','.join(names)}", *rows]))
    assert run("multiscene", "--root", tmp_path, *arguments)[0] == 0
    unseen = read_records("records/test_zsl.json", str(tmp_path)).classes
    assert set(unseen) == set(shuffled(multiscene.CLASSES, seed)[:16])


@pytest.mark.parametrize("name", sorted(prepare_data.NAMES))
def test_every_benchmark_takes_the_options_of_its_command(name, tmp_path, run):
    """An empty root is an error that names the missing download, not one of the options."""
    code, _, error = run(name, "--root", tmp_path)
    assert code == 2
    assert "is missing" in error
