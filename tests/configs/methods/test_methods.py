"""Every file of configs/methods: what it may hold, and that its method is built and trained from it."""

from pathlib import Path

import pytest
import torch
import yaml

from configs import flat, load_config
from model import METHODS, UNTRAINED, build_method, load_towers

CONFIGS = Path(__file__).parents[3] / "configs"
YAMLS = sorted((CONFIGS / "methods").glob("*.yml"))
OF_THE_BENCHMARK = (
    "OUTPUT_DIR", "DEVICE", "WANDB", "WANDB_PROJ", "DATASETS", "DATALOADER", "MODEL.BACKBONE", "MODEL.CLIP_WEIGHTS",
    "MODEL.CLIP_MEAN", "MODEL.CLIP_STD", "INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST",
)  # fmt: skip
SEEN, UNSEEN = ("cat", "cup", "dog", "traffic light"), ("kite", "sun")
ALL_SEEN = ("dualcoop-partial", "trm-ml")  # learn something of each label's own
SMALLER = {"comc": ("MODEL.COMC.SENTENCES", "8")}  # whose own size would take long

of_each = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)


def written(path):
    """The keys that a file holds, by their whole names, with its own values."""
    return flat_of(yaml.safe_load(path.read_text()))


def flat_of(node, prefix=""):
    found = {}
    for name, value in node.items():
        found |= flat_of(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def explained(path, key):
    """Whether the line of a key has a comment."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return any(line.startswith(f"{key.rpartition('.')[2]}:") and " # " in line for line in lines)


def tiny(path):
    """The configuration of a file on top of the smallest benchmark."""
    more = SMALLER.get(load_config(path).MODEL.METHOD, ())
    return load_config([CONFIGS / "tiny.yml", path], more)


def build(cfg):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = SEEN if cfg.MODEL.METHOD in ALL_SEEN else SEEN + UNSEEN
        return build_method(cfg, load_towers(cfg), seen=len(SEEN), labels=labels)


def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@of_each
@pytest.mark.parametrize("benchmark", ["coco.yml", "shapes.yml"])
def test_it_loads_on_top_of_a_benchmark_and_counts(path, benchmark):
    cfg, alone, base = (flat(load_config(p)) for p in ([CONFIGS / benchmark, path], path, CONFIGS / benchmark))
    for key, value in cfg.items():
        assert value == (alone if key in written(path) else base)[key]


@of_each
def test_it_names_a_method(path):
    assert written(path)["MODEL.METHOD"] in METHODS


@of_each
def test_it_holds_only_what_differs_from_the_defaults_or_says_why(path):
    defaults, cfg = flat(load_config()), flat(load_config(path))
    assert [key for key in written(path) if cfg[key] == defaults[key] and not explained(path, key)] == []


@of_each
def test_it_leaves_the_benchmark_alone(path):
    taken = [key for key in written(path) if any(key == own or key.startswith(f"{own}.") for own in OF_THE_BENCHMARK)]
    assert taken == []


@of_each
def test_it_begins_with_what_it_is_and_how_to_use_it_with_a_benchmark(path):
    lines = path.read_text().splitlines()
    head = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    assert len(head) >= 2
    assert all(line.startswith("# ") for line in head)
    use = [line for line in head if f"--config_file configs/methods/{path.name}" in line]
    assert use
    for line in use:
        benchmark = line.partition("--config_file configs/")[2].split()[0]
        assert (CONFIGS / benchmark).is_file()
        assert line.index(benchmark) < line.index("configs/methods/")  # the last counts


@of_each
def test_its_method_scores_labels_that_are_unseen_if_it_can(path):
    cfg = tiny(path)
    method = build(cfg).eval()
    with torch.no_grad():
        scores = method(images(), method.encode_labels(SEEN[:2] if cfg.MODEL.METHOD in ALL_SEEN else UNSEEN)).scores
    assert scores.shape == (3, 2)
    assert scores.isfinite().all()


@of_each
def test_its_method_has_something_to_train_unless_it_is_tested_as_it_is(path):
    cfg = tiny(path)
    method = build(cfg).train()
    assert (not method.groups()) == (cfg.MODEL.METHOD in UNTRAINED)
    if not method.groups():
        return
    targets = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]])
    losses = method.losses(method(images(), method.encode_labels(SEEN), targets), targets)
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for group in method.groups() for p in group.parameters if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
