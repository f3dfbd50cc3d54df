"""What goes wrong for users: one line on stderr, exit code 2, and nothing half-written."""

import errno
import json
import math
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import atomic, checkpoint, memory, results
from engine.run import newest_run

ROOT = Path(__file__).parent.parent


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_line(captured):
    """The only line of an error, after progress bars if there are any."""
    lines = captured.err.replace("\r", "\n").splitlines()
    assert "Traceback" not in captured.err
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


def results_of(run):
    """The newest results of a run's test images."""
    return json.loads((newest_run(run / "test", "results.json") / "results.json").read_text())["results"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.fixture
def refused(command, capsys):
    """Runs a script that has to fail; gives its line."""

    def run(script, on, *arguments, options=()):
        capsys.readouterr()
        assert command(script, on, *arguments, options=options) == 2
        return error_line(capsys.readouterr())

    return run


def missing_data(data):
    return ["DATASETS.ROOT_DIR", str(data / "none")]


def missing_list(data):
    (data / "train.json").unlink()
    return []


def broken_list(data):
    (data / "train.json").write_text('{"images": [')
    return []


def no_classes(data):
    (data / "train.json").write_text(json.dumps({"images": [], "classes": []}))
    return []


def no_images(data):
    (data / "train.json").write_text(json.dumps({"images": [], "classes": ["cat", "cup", "dog", "tree"]}))
    return []


def overrides(*values):
    return lambda _: list(values)


WRONG = {
    "no data folder": (missing_data, "/data/none'"),
    "no annotation file": (missing_list, "/data/train.json"),
    "broken JSON": (broken_list, "/data/train.json, line 1"),
    "no classes": (no_classes, "/data/train.json: the list of classes is empty"),
    "no images": (no_images, "/data/train.json: 0 training images"),
    "unknown key": (overrides("SOLVER.SEAD", "1"), "SOLVER.SEAD"),
    "wrong type": (overrides("SOLVER.SEED", "x"), "SOLVER.SEED"),
    "key without a value": (overrides("SOLVER.SEED"), "'SOLVER.SEED' has no value"),
    "unknown period": (overrides("SOLVER.LR_PERIOD", "batch"), "SOLVER.LR_PERIOD must be one of epoch, step, not "),
    "unknown schedule": (overrides("SOLVER.SCHEDULE", "poly"), "SOLVER.SCHEDULE must be one of cosine, "),
    "unknown device": (overrides("DEVICE", "gpu"), "unknown device 'gpu'"),
    "unknown precision": (overrides("SOLVER.AMP", "fp8"), "SOLVER.AMP must be one of fp16, bf16, off"),
    "unknown precision in the evaluation": (overrides("TEST.AMP", "fp8"), "TEST.AMP must be one of"),
    "no weights to begin with": (overrides("SOLVER.INIT", "gone.pth"), "no checkpoint at gone.pth"),
    "no weights": (overrides("MODEL.CLIP_WEIGHTS", "none.pt"), "'none.pt' are not there"),
    "unknown backbone": (overrides("MODEL.BACKBONE", "ViT-Z"), "MODEL.BACKBONE 'ViT-Z'"),
    "a block that is not there": (overrides("MODEL.DEPTH_TEXT", "[7]"), "MODEL.DEPTH_TEXT"),
    "unknown loss": (overrides("MODEL.LOSS_TYPE", "BCE"), "MODEL.LOSS_TYPE"),
    "impossible average": (overrides("MODEL.EMA_DECAY", "1.5"), "MODEL.EMA_DECAY must be"),
    "negative rate": (overrides("SOLVER.BASE_LR", "-1.0"), "SOLVER.BASE_LR must be"),
    "cached and augmented": (
        overrides("DATALOADER.CACHE", "True"), "set INPUT.AUGMENT False, or DATALOADER.CACHE False"),
    "cached without anything to keep": (
        overrides("DATALOADER.CACHE", "True", "INPUT.AUGMENT", "False", "MODEL.METHOD", "comc"),
        "MODEL.METHOD comc does not learn from what is kept of an image"),
    "cached and replayed": (
        overrides("DATALOADER.CACHE", "True", "INPUT.AUGMENT", "False", "COMPILE", "graphs"),
        "DATALOADER.CACHE leaves out the part that begins CUDA graphs: set COMPILE on, or off"),
    "best without validation": (
        overrides("SOLVER.SELECT", "best", "DATASETS.VAL", ""), "SOLVER.SELECT best needs validation images"),
}  # fmt: skip


def test_what_is_more_than_the_memory_is_refused_before_there_is_a_run(
    benchmark, train_script, refused, tmp_path, monkeypatch
):
    (tmp_path / "meminfo").write_text("MemAvailable: 1 kB\n")
    monkeypatch.setattr(memory, "MEMORY", tmp_path / "meminfo")
    told = refused(train_script, benchmark, "DATALOADER.CACHE", "True", "INPUT.AUGMENT", "False")
    assert "of 6 images, and 0.0 GB of memory are available: set it False" in told
    assert not benchmark.runs.exists()


@pytest.mark.parametrize("case", WRONG)
def test_a_training_that_cannot_start_says_why_and_leaves_no_run(benchmark, train_script, refused, case):
    spoil, told = WRONG[case]
    line = refused(train_script, benchmark, *spoil(benchmark.data))
    assert told in line
    assert not benchmark.runs.exists()


def test_resuming_from_a_folder_without_a_checkpoint_is_an_error(benchmark, train_script, refused, tmp_path):
    line = refused(train_script, benchmark, options=["--resume", str(tmp_path)])
    assert line == f"error: {tmp_path} holds no checkpoint.pth to resume from"
    assert not benchmark.runs.exists()


def test_a_training_is_not_begun_with_a_solver_that_the_machine_has_not(benchmark, train_script, refused, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    line = refused(train_script, benchmark, "MODEL.OT_SOLVER", "triton", "DEVICE", "cpu")
    assert line.endswith("MODEL.OT_SOLVER sinkhorn solves the same problems without it")


def test_a_truncated_image_stops_the_training_and_is_named(benchmark, train_script, refused):
    truncate(benchmark.data / "images" / "train2.png")
    line = refused(train_script, benchmark, "DATALOADER.READ_TRUNCATED", "False")
    assert "cannot read the image" in line
    assert "train2.png" in line


@pytest.mark.filterwarnings("always")
def test_by_default_a_truncated_image_is_trained_on_as_the_release_does_and_named(
    benchmark, train_script, command, capsys
):
    truncate(benchmark.data / "images" / "train2.png")
    assert command(train_script, benchmark, "SOLVER.MAX_EPOCHS", "1") == 0
    told = capsys.readouterr().err
    assert "warning: training images with 1 image files that are cut short" in told
    assert "train2.png" in told


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("how", ["skip", "stop"])
def test_a_loss_that_is_not_finite_is_skipped_or_stops_the_training(
    benchmark, train_script, command, capsys, monkeypatch, how
):
    forward = train_script.Trainer._train_step

    def spoilt(self, batch, epoch):
        return forward(self, batch._replace(images=batch.images * (math.nan if self.step == 1 else 1)), epoch)

    monkeypatch.setattr(train_script.Trainer, "_train_step", spoilt)
    code = command(train_script, benchmark, "SOLVER.MAX_EPOCHS", "1", "SOLVER.NONFINITE", how)
    told = capsys.readouterr().err
    assert code == (0 if how == "skip" else 2)
    assert ("warning: left out: the loss is nan in epoch 1, step 2" in told) == (how == "skip")
    assert ("error: the loss is nan in epoch 1, step 2" in told) == (how == "stop")


@pytest.fixture
def shrunk(benchmark):
    """The benchmark, in which one image of each list cannot be read."""
    for name in ("val0.png", "test4.png"):
        truncate(benchmark.data / "images" / name)
    return benchmark


def test_a_truncated_image_stops_an_evaluation_which_writes_nothing(shrunk, trained, test_script, refused):
    before = files(trained.runs)
    line = refused(test_script, trained, "DATASETS.ROOT_DIR", str(shrunk.data), "DATALOADER.READ_TRUNCATED", "False")
    assert "test4.png" in line
    assert files(trained.runs) == before
    assert not (trained.run / "test").exists()


@pytest.mark.filterwarnings("always")
def test_by_default_an_evaluation_uses_truncated_images_and_names_them(shrunk, trained, test_script, command, capsys):
    assert command(test_script, trained, "DATASETS.ROOT_DIR", str(shrunk.data)) == 0
    assert "GZSL with 1 image files that are cut short" in capsys.readouterr().err
    assert results_of(trained.run)["RAM"]["GZSL"]["images"] == 7


@pytest.mark.filterwarnings("always")
def test_an_evaluation_can_go_on_without_images_that_cannot_be_read(shrunk, trained, test_script, command, capsys):
    arguments = ["DATASETS.ROOT_DIR", str(shrunk.data), "DATALOADER.SKIP_BROKEN", "True"]
    arguments += ["DATALOADER.READ_TRUNCATED", "False"]
    assert command(test_script, trained, *arguments) == 0
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    warned = [line[line.index("warning: ") :] for line in lines if "warning: " in line]
    assert [line.split(":")[1] for line in warned] == [" ZSL and GZSL without 1 unreadable images"]
    assert all("test4.png" in line for line in warned)
    assert results_of(trained.run)["RAM"]["GZSL"]["images"] == 6


@pytest.mark.filterwarnings("always")
def test_a_checkpoint_of_other_seen_labels_is_tested_with_a_warning(benchmark, trained, test_script, command, capsys):
    content = json.loads((benchmark.data / "train.json").read_text())
    content["classes"].remove("tree")
    content["images"] = [[path, [x for x in labels if x != "tree"]] for path, labels in content["images"]]
    (benchmark.data / "train.json").write_text(json.dumps(content))
    assert command(test_script, trained, "DATASETS.ROOT_DIR", str(benchmark.data)) == 0
    err = capsys.readouterr().err
    assert "warning: " in err
    assert "was trained on other seen labels (4) than the benchmark's (3)" in err
    assert results_of(trained.run)


def test_a_training_is_not_resumed_with_other_seen_labels(benchmark, trained, train_script, refused):
    content = json.loads((benchmark.data / "train.json").read_text())
    content["classes"].remove("tree")
    content["images"] = [[path, [x for x in labels if x != "tree"]] for path, labels in content["images"]]
    (benchmark.data / "train.json").write_text(json.dumps(content))
    line = refused(train_script, trained, "DATASETS.ROOT_DIR", str(benchmark.data), options=["--resume", "auto"])
    assert line.endswith("was trained with other seen labels: 'tree' is on one side only")


def test_a_checkpoint_is_not_tested_with_another_clip(trained, test_script, refused):
    line = refused(test_script, trained, "SOLVER.SEED", "1")  # other random towers
    assert "checkpoint.pth needs the CLIP ViT-tiny-8" in line
    assert "MODEL.CLIP_WEIGHTS gives ViT-tiny-8" in line
    assert not (trained.run / "test").exists()


def test_a_training_is_not_resumed_with_another_clip(trained, train_script, refused):
    assert "was trained with the CLIP" in refused(train_script, trained, "SOLVER.SEED", "1",
                                                  options=["--resume", "auto"])  # fmt: skip


@pytest.mark.filterwarnings("ignore:MODEL:UserWarning")
def test_a_checkpoint_of_another_shape_names_the_configuration_to_test_it_with(trained, test_script, refused):
    line = refused(test_script, trained, "MODEL.VISION_ADAPT", "3")
    assert line.endswith(f"test with the run's own configuration, --config_file {trained.run}/config.yml")
    assert not (trained.run / "test").exists()


def test_without_a_run_there_is_nothing_to_test(benchmark, test_script, refused):
    assert refused(test_script, benchmark) == (
        f"error: no run with a checkpoint.pth in {benchmark.runs}: train first, or set TEST.WEIGHT"
    )
    assert not benchmark.runs.exists()


def test_a_checkpoint_that_is_missing_is_an_error(benchmark, test_script, refused):
    assert refused(test_script, benchmark, "TEST.WEIGHT", "none.pth").startswith("error: no checkpoint at none.pth")


def test_a_damaged_checkpoint_is_an_error(trained, test_script, refused):
    truncate(trained.run / "checkpoint.pth")
    assert "checkpoint.pth is damaged" in refused(test_script, trained)
    assert not (trained.run / "test").exists()


@pytest.mark.parametrize(
    ("value", "told"), [("train", "must be one of test, val, not 'train'"), ("val", "DATASETS.VAL is empty")]
)
def test_a_split_that_is_not_there_is_an_error(trained, test_script, refused, value, told):
    assert told in refused(test_script, trained, "TEST.SPLIT", value, "DATASETS.VAL", "")


def full_disk(monkeypatch, module, name, after=0):
    """From the `after`-th file of this name on, there is no space left."""
    original, calls = atomic.atomic_write, []

    @contextmanager
    def write(path, mode="wb"):
        calls.extend([path] if Path(path).name == name else [])
        with original(path, mode) as file:
            yield file
            if Path(path).name == name and len(calls) > after:
                file.flush()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "atomic_write", write)


def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_one_before(benchmark, train_script, refused, monkeypatch):
    full_disk(monkeypatch, checkpoint, "checkpoint.pth", after=2)
    line = refused(train_script, benchmark)
    assert line.endswith("checkpoint.pth: cannot write, No space left on device")
    (run,) = benchmark.runs.iterdir()
    assert checkpoint.load_checkpoint(run / "checkpoint.pth")["epoch"] == 2
    assert not list(run.rglob("*.part"))


def test_a_disk_that_is_full_at_the_results_leaves_no_half_of_them(trained, test_script, refused, monkeypatch):
    full_disk(monkeypatch, results, "results.json")
    assert refused(test_script, trained).endswith("results.json: cannot write, No space left on device")
    assert [path for path in (trained.run / "test").rglob("*") if path.is_file()] == []


def test_a_file_in_place_of_the_output_folder_is_an_error(benchmark, train_script, refused):
    benchmark.runs.touch()
    assert "cannot make a run folder" in refused(train_script, benchmark)


NO_PICTURE = "error: no file or folder 'none.png': pictures are files, folders or patterns in quotes\n"
NO_CONFIGURATION = "error: cannot read the configuration none.yml: No such file or directory\n"


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("train.py", ["--config_file", "none.yml"], NO_CONFIGURATION),
        ("test.py", ["--config_file", "none.yml"], NO_CONFIGURATION),
        (
            "predict.py",
            ["none.png"],
            NO_PICTURE,
        ),
    ],
)
def test_a_script_ends_with_code_2_and_one_line(tmp_path, forked, script, arguments, said):
    done = forked(ROOT / script, *arguments, cwd=tmp_path)
    assert done.wait() == 2
    assert (done.stdout, done.stderr) == ("", said)
    assert list(tmp_path.iterdir()) == []
