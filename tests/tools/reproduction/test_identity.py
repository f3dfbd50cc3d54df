"""When two runs are the same."""

from configs import flat, load_config
from tools.reproduction.identity import differing, digest, recipe


def config(*overrides):
    return differing(load_config("configs/tiny.yml", overrides))


def test_only_what_differs_from_the_defaults_counts():
    found = config("MODEL.MATCHER", "ot", "SOLVER.MOMENTUM", "0.9")
    assert found["MODEL.MATCHER"] == "ot"
    assert "SOLVER.MOMENTUM" not in found
    assert found["MODEL.DEPTH_TEXT"] == ["last", 2]


def test_what_changes_no_results_is_left_out():
    free = ["OUTPUT_DIR", "x", "DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "3", "WANDB", "True", "TEST.WEIGHT", "a.pth",
            "DATASETS.ROOT_DIR", "/data", "SOLVER.INIT", "runs/x", "SOLVER.CHECKPOINT_PERIOD", "7"]  # fmt: skip
    assert digest(config(*free)) == digest(config())


def test_what_changes_results_changes_the_identity():
    made = {digest(config(*words)) for words in ((), ("TEST.SPLIT", "val"), ("TEST.PROTOCOLS", "ZSL"),
                                                 ("MODEL.TSS", "False"), ("SOLVER.SEED", "1"),
                                                 ("MODEL.CLIP_WEIGHTS", "other.pt"))}  # fmt: skip
    assert len(made) == 6


def test_weights_of_clip_are_the_same_in_any_folder():
    assert config("MODEL.CLIP_WEIGHTS", "/a/x.pt") == config("MODEL.CLIP_WEIGHTS", "there/x.pt")


def test_own_images_at_another_place_are_others():
    own = ("DATASETS.NAMES", "custom", "DATASETS.ROOT_DIR")
    assert config(*own, "/one/data") != config(*own, "/other/data")


def test_a_recipe_is_the_same_for_all_seeds():
    assert recipe(config("SOLVER.SEED", "1")) == recipe(config("SOLVER.SEED", "2"))


def test_what_a_run_begins_with_belongs_to_it():
    assert digest(config(), "one") != digest(config(), "another") != digest(config())


def test_nothing_of_the_solver_counts_where_nothing_is_trained():
    assert config("MODEL.METHOD", "zero-shot", "SOLVER.SEED", "5") == config("MODEL.METHOD", "zero-shot")


def test_no_path_of_a_machine_is_kept():
    found = config("DATASETS.TRAIN", "/home/someone/mine.csv")["DATASETS.TRAIN"]
    assert found.startswith("mine.csv (")
    assert "someone" not in found


def test_a_key_that_was_added_later_changes_nothing():
    values = flat(load_config("configs/tiny.yml"))
    older = {key: value for key, value in values.items() if key != "MODEL.OT_SOLVER"}
    assert digest(differing(older)) == digest(differing(values))
