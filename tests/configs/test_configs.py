from pathlib import Path

import pytest
import yaml
from yacs.config import CfgNode

from configs import ConfigError, load_config
from datasets import build_test, build_train
from loss import build_loss
from model import build_method, load_towers

CONFIGS = Path(__file__).parents[2] / "configs"
YAMLS = sorted(CONFIGS.glob("*.yml"))
DATA_IS_BUILT_IN = {"shapes.yml", "tiny.yml"}
REPEATED = {  # said again for the reader of a pair of files
    "coco.yml": {"DATASETS.NAMES", "MODEL.DEPTH_TEXT", "MODEL.TEMPERATURE", "SOLVER.LOG_PERIOD"},
}  # fmt: skip
RELEASE = {  # the authors' values on COCO, by the names of their keys
    "MODEL.BACKBONE": "ViT-B/16", "MODEL.LOSS_TYPE": "MMC", "MODEL.DEPTH_VISION": ("last", 3),
    "MODEL.DEPTH_TEXT": ("last", 3), "MODEL.TEXT_CTX": 4, "MODEL.VISION_ADAPT": 8, "MODEL.SAA_LAYER": ("all",),
    "MODEL.KERNEL_SIZE": 3, "MODEL.TEMPERATURE": 2e-3, "MODEL.OT_REG": 0.1, "MODEL.OT_REGSC": 0.05,
    "MODEL.USE_EMA": True, "MODEL.EMA_DECAY": 0.9997, "MODEL.EMA_RESET": True, "MODEL.LADDER_FACTOR": 1.0,
    "MODEL.LADDER_START": "embeddings", "MODEL.POSITIONS": "bilinear", "MODEL.TEMPERATURE_GLOBAL": 1e-2,
    "MODEL.LPD_TEMPERATURE": 0.1, "MODEL.TKT_SHARPNESS": 20.0, "MODEL.OT_ITER": 100, "MODEL.OT_TOL": 1e-3,
    "MODEL.LOSS_WEIGHT": 1.0, "MODEL.MATCHER": "kcot", "MODEL.TSS": True,
    "INPUT.AUG_PROB": 0.2, "INPUT.CROP": 0.1, "INPUT.BLUR": 0.2, "INPUT.CONTRAST": (0.75, 1.25), "INPUT.AFFINE": 0.1,
    "INPUT.ROTATION": 10.0, "INPUT.NOISE": 0.015, "INPUT.MULTIPLY": (0.9, 1.1), "INPUT.PER_CHANNEL": 0.2,
    "INPUT.EXIF_ROTATION": False, "DATALOADER.READ_TRUNCATED": True, "SOLVER.NONFINITE": "skip",
    "SOLVER.ADAPTER_FACTOR": 0.1, "SOLVER.LR_PERIOD": "epoch", "SOLVER.WARMUP_LR": 5e-7, "SOLVER.MIN_LR": 1e-7,
    "SOLVER.AMP": "fp16", "TEST.AMP": "off", "SOLVER.SCHEDULE": "cosine",
    "INPUT.SIZE_TRAIN": (224, 224), "INPUT.SIZE_TEST": (224, 224), "INPUT.PROB": 0.5, "INPUT.RE_PROB": 0.5,
    "INPUT.PADDING": 10, "INPUT.PIXEL_MEAN": (0.5, 0.5, 0.5), "INPUT.PIXEL_STD": (0.5, 0.5, 0.5),
    "DATASETS.NAMES": "COCO_ZS", "DATALOADER.NUM_WORKERS": 8,
    "SOLVER.BASE_LR": 5e-5, "SOLVER.BASE_LR_SGD": 1e-3, "SOLVER.WEIGHT_DECAY": 1e-4,
    "SOLVER.WEIGHT_DECAY_SGD": 1e-4, "SOLVER.MOMENTUM": 0.9, "SOLVER.IMS_PER_BATCH": 32, "SOLVER.MAX_EPOCHS": 6,
    "SOLVER.EVAL_PERIOD": 3, "SOLVER.LOG_PERIOD": 500, "SOLVER.WARMUP_EPOCHS": 3, "SOLVER.SCHEDULER_MAX_EPOCHS": 60,
    "SOLVER.SEED": 42, "SOLVER.GAMMA_NEG": 2.0, "SOLVER.GAMMA_POS": 0.0, "SOLVER.CLIP": 0.0,
    "TEST.IMS_PER_BATCH": 512, "TEST.WEIGHT": "", "WANDB": False, "WANDB_PROJ": "OVML-RAM",
}  # fmt: skip
ONE_VALUE_ONLY = ("MODEL.TRANSFER_TYPE", "SOLVER.OPTIMIZER_NAME", "SOLVER.LR_SCHEDULER")  # nothing to choose


def get(node, key):
    for part in key.split("."):
        node = node[part]
    return node


def flat(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def message(path=None, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "a.yml").write_text(text)
        return tmp_path / "a.yml"

    return write


@pytest.mark.parametrize("key", RELEASE)
def test_a_default_is_that_of_the_release_on_coco(key):
    assert get(load_config(), key) == RELEASE[key]


@pytest.mark.parametrize("key", ONE_VALUE_ONLY)
def test_a_key_with_a_single_value_is_left_out(key):
    assert message(overrides=[key, "x"]).startswith(f"the overrides: there is no key {key}")


def test_an_override_beats_the_yaml(written):
    cfg = load_config(written("SOLVER: {SEED: 1, MAX_EPOCHS: 9}"), ["SOLVER.SEED", "2"])
    assert (cfg.SOLVER.SEED, cfg.SOLVER.MAX_EPOCHS) == (2, 9)


def test_the_yaml_beats_the_defaults(written):
    assert load_config(written("INPUT: {SIZE_TEST: [32, 64]}")).INPUT.SIZE_TEST == (32, 64)


def test_the_last_of_several_yamls_counts(tmp_path):
    first, second = tmp_path / "first.yml", tmp_path / "second.yml"
    first.write_text("SOLVER:\n  SEED: 1\n  MAX_EPOCHS: 2\n")
    second.write_text("SOLVER:\n  SEED: 3\n")
    cfg = load_config([first, second])
    assert (cfg.SOLVER.SEED, cfg.SOLVER.MAX_EPOCHS) == (3, 2)


def test_numbers_may_be_written_as_in_python(written):
    assert load_config(written("SOLVER: {BASE_LR: 5e-3}")).SOLVER.BASE_LR == 0.005  # plain YAML reads a string


def test_an_empty_yaml_gives_the_defaults(written):
    assert load_config(written("# nothing\n")) == load_config()


def test_a_configuration_is_frozen():
    with pytest.raises(AttributeError, match="immutable"):
        load_config().SOLVER.SEED = 1


def test_the_defaults_are_not_changed_by_loading():
    load_config(None, ["SOLVER.SEED", "1"])
    assert load_config().SOLVER.SEED == 42


@pytest.mark.parametrize(
    ("key", "near"),
    [("SOLVER.SEAD", "SOLVER.SEED"), ("SEED", "SOLVER.SEED"), ("solver.seed", "SOLVER.SEED"),
     ("MODEL.TAU", "MODEL.TSS"), ("DATASET.TRAIN", "DATASETS.TRAIN"), ("wandb", "WANDB")],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_nearest(key, near, written):
    assert message(overrides=[key, "1"]) == f"the overrides: there is no key {key}; did you mean {near}?"
    section, _, name = key.rpartition(".")
    path = written(f"{section}: {{{name}: 1}}" if section else f"{name}: 1")
    assert f"there is no key {section if section not in load_config() and section else key}" in message(path)


def test_a_key_like_none_is_answered_without_one():
    assert message(overrides=["~", "1"]) == "the overrides: there is no key ~"


def test_an_error_in_an_override_is_not_blamed_on_the_file(written):
    assert message(written("WANDB: True"), ["SOLVER.SEAD", "1"]).startswith(
        "the overrides: there is no key SOLVER.SEAD;"
    )


def test_an_unknown_key_of_a_yaml_is_an_error(written):
    path = written("SOLVER: {SEAD: 1}")
    text = message(path)
    assert "SOLVER.SEAD" in text
    assert text.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.SEED", "x"), ("SOLVER.SEED", "1.5"), ("SOLVER.SEED", "True"), ("SOLVER.BASE_LR", "fast"),
     ("WANDB", "perhaps"), ("MODEL.DEPTH_TEXT", "3"), ("MODEL", "3")],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_an_error(key, value):
    text = message(overrides=[key, value])
    assert "Type mismatch" in text
    assert text.endswith(f"key: {key}")


def test_a_value_of_the_wrong_type_in_a_yaml_is_an_error(written):
    path = written("SOLVER: {SEED: x}")
    text = message(path)
    assert text.startswith(f"{path}: ")
    assert "SOLVER.SEED" in text


def test_a_key_without_a_value_is_an_error():
    assert message(overrides=["SOLVER.SEED", "1", "WANDB"]).endswith("'WANDB' has no value")


def test_a_missing_file_is_an_error(tmp_path):
    assert message(tmp_path / "a.yml") == f"cannot read the configuration {tmp_path}/a.yml: No such file or directory"


def test_a_folder_is_an_error(tmp_path):
    folder = tmp_path / "a.yml"
    folder.mkdir()
    assert message(folder) == f"cannot read the configuration {folder}: Is a directory"


@pytest.mark.parametrize("text", ["SOLVER: {SEED: 1", "SOLVER:\n\tSEED: 1", "- 1\n- 2", "SOLVER", "SOLVER: 3", "\x00"])
def test_a_broken_yaml_is_an_error_that_names_the_file(written, text):
    path = written(text)
    assert message(path).startswith(f"{path}: ")


def test_a_file_that_is_no_text_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.yml").write_bytes(b"\xff\xfe\x81")
    assert message(tmp_path / "a.yml").startswith(f"{tmp_path}/a.yml: ")


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_a_yaml_loads(path):
    assert isinstance(load_config(path), CfgNode)


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_a_yaml_holds_only_what_differs(path):
    defaults, cfg = load_config(), load_config(path)
    same = {key for key, _ in flat(yaml.safe_load(path.read_text())) if get(cfg, key) == get(defaults, key)}
    assert same == REPEATED.get(path.name, set())


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_a_yaml_begins_with_what_it_is_and_how_to_use_it(path):
    head = path.read_text().split("\nOUTPUT_DIR", 1)[0].splitlines()
    assert len(head) >= 2
    assert all(line.startswith("# ") for line in head)
    assert any(f"--config_file configs/{path.name}" in line for line in head)


def test_yamls_write_to_folders_of_their_own():
    folders = [load_config(path).OUTPUT_DIR for path in YAMLS]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", sorted(DATA_IS_BUILT_IN))
def test_a_yaml_whose_data_are_built_in_trains(name):
    cfg = load_config(CONFIGS / name, [
        "DEVICE", "cpu", "MODEL.CLIP_WEIGHTS", "random", "DATASETS.SUBSET", "2", "SOLVER.IMS_PER_BATCH", "2",
        "DATALOADER.NUM_WORKERS", "0",
    ])  # fmt: skip
    words, loader = build_train(cfg)
    (batch,) = loader
    model = build_method(cfg, load_towers(cfg))
    found = model(batch.images, model.encode_labels(words.seen), batch.targets)
    loss = build_loss(cfg)(found.local_logits, batch.targets) + build_loss(cfg)(found.global_logits, batch.targets)
    loss.backward()
    gradients = [p.grad for group in model.groups() for p in group.parameters]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert sum(g.abs().sum() for g in gradients) > 0


@pytest.mark.parametrize("name", sorted(DATA_IS_BUILT_IN))
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_yaml_whose_data_are_built_in_has_images_to_evaluate(name, split):
    cfg = load_config(CONFIGS / name, ["DATASETS.SUBSET", "3", "DATALOADER.NUM_WORKERS", "0"])
    assert [len(protocol.loader.dataset) for protocol in build_test(cfg, split).protocols.values()] == [3, 3]


def test_a_configuration_that_is_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "cfg.py"
    path.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\ncfg = {{}}\n")
    with pytest.raises(ConfigError, match=r"cfg.py has to be a .yml or .yaml file"):
        load_config(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "rate", "teacher"),
    [(("coco", "nus"), 5e-6, 0.05), (("rap", "pa100k", "multiscene", "mlrsnet"), 5e-5, 0.01)],
)
def test_natural_images_and_other_domains_have_the_papers_rates_and_lambda_2(names, rate, teacher):
    for name in names:
        cfg = load_config(CONFIGS / f"{name}.yml")
        assert pytest.approx(rate) == cfg.SOLVER.BASE_LR * cfg.SOLVER.ADAPTER_FACTOR
        assert teacher == cfg.MODEL.OT_REGSC
        assert (cfg.SOLVER.BASE_LR_SGD, cfg.SOLVER.MAX_EPOCHS, cfg.SOLVER.IMS_PER_BATCH) == (1e-3, 6, 32)


@pytest.mark.parametrize(
    ("name", "seen", "temperature"),
    [("coco", 48, 2e-3), ("nus", 925, 2e-4), ("rap", 35, 0.1 / 35), ("pa100k", 16, 0.1 / 16),
     ("multiscene", 20, 0.1 / 20), ("mlrsnet", 40, 0.1 / 40)],
)  # fmt: skip
def test_the_local_temperature_is_the_releases_or_a_tenth_over_the_seen_labels(name, seen, temperature):
    small = ["MODEL.BACKBONE", "ViT-tiny-8", "MODEL.CLIP_WEIGHTS", "random", "MODEL.DEPTH_VISION", "[1]",
             "MODEL.DEPTH_TEXT", "[1]", "MODEL.SAA_LAYER", "[1]", "INPUT.SIZE_TRAIN", "[32, 32]",
             "INPUT.SIZE_TEST", "[32, 32]"]  # fmt: skip
    cfg = load_config(CONFIGS / f"{name}.yml", small)
    model = build_method(cfg, load_towers(cfg), seen=seen)
    assert model.local_temperature.item() == pytest.approx(temperature)


def test_a_whole_number_is_a_float_where_one_is_wanted(written):
    assert load_config(overrides=["DATASETS.VAL_FRACTION", "0"]).DATASETS.VAL_FRACTION == 0.0
    cfg = load_config(written("DATASETS:\n  VAL_FRACTION: 0\nSOLVER:\n  BASE_LR: 1"))
    assert (cfg.SOLVER.BASE_LR, type(cfg.DATASETS.VAL_FRACTION)) == (1.0, float)


def test_a_float_is_no_whole_number():
    assert "SOLVER.SEED" in message(overrides=["SOLVER.SEED", "1.5"])


@pytest.mark.parametrize(
    ("text", "names"),
    [("cat", ("cat",)), ("cat, traffic light", ("cat", "traffic light")), ("unseen.txt", ("unseen.txt",)),
     ("('cat', 'tie')", ("cat", "tie")), ('["a, b"]', ("a, b",)), ("", ())],
)  # fmt: skip
def test_labels_on_the_command_line_need_no_quotes(text, names):
    assert names == load_config(overrides=["DATASETS.UNSEEN", text]).DATASETS.UNSEEN


@pytest.mark.parametrize(("key", "value"), [("MODEL.TEMPLATE", "{}"), ("DATASETS.NAMES", "2014"), ("OUTPUT_DIR", "[1]"),
                                            ("DATASETS.SEPARATOR", "()"), ("DATASETS.TRAIN", "a" * 4000)])  # fmt: skip
def test_texts_are_taken_as_they_are(key, value, written):
    assert get(load_config(overrides=[key, value]), key) == value
    section, _, name = key.rpartition(".")
    assert (
        get(load_config(written(f"{section}:\n  {name}: {value!r}" if section else f"{name}: {value!r}")), key) == value
    )


def test_a_number_in_a_yaml_is_a_text_where_one_is_wanted(written):
    assert load_config(written("DATASETS: {NAMES: 2014}")).DATASETS.NAMES == "2014"
