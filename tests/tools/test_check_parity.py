"""The comparison with reference numbers: right ones pass, wrong ones fail, broken files are one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import CLIP
from torch import nn

from clip.adapters import TextGuidedSelection
from tools.check_parity import LIMITS, Recomputed, Reference, main

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "tests" / "data" / "release_open.npz"
START, END = 198, 199  # a small vocabulary keeps these tests quick


def tokens_of(lengths):
    """Start, some ids, end, and zeros behind it."""
    tokens = np.zeros((len(lengths), 77), dtype=np.int32)
    for row, length in enumerate(lengths):
        tokens[row, : length + 2] = [START, *range(10 * row + 1, 10 * row + 1 + length), END]
    return tokens


def frozen(tokens):
    """A CLIP whose towers differ in width and depth, for images of 24 x 16 pixels."""
    vision = {"image_size": (24, 16), "patch_size": 8, "width": 128, "layers": 3, "head_width": 64}
    text = {"context_length": 77, "vocab_size": END + 1, "width": 64, "heads": 1, "layers": 4}
    state = {name: value.numpy() for name, value in CLIP(24, vision, text, quick_gelu=True).state_dict().items()}
    table, ids = state.pop("token_embedding.weight"), np.unique(tokens)
    return {"token_embedding.ids": ids.astype(np.int32), "token_embedding.rows": table[ids], **state}


def trained(tapped, visual_prompts, text_prompts):
    drawn = {f"visual.{block}.prompts": 0.02 * torch.randn(3, 128) for block in visual_prompts}
    drawn |= {f"text.{block}.prompts": 0.02 * torch.randn(2, 64) for block in text_prompts}
    for block in tapped:
        selection = TextGuidedSelection(128, 24, mask_kernel=5)
        nn.init.normal_(selection.norm_text.bias)
        drawn |= {f"visual.{block}.tss.{name}": p.detach() for name, p in selection.named_parameters()}
    drawn |= {"temperature.local": torch.tensor(4e-3), "temperature.global": torch.tensor(0.02)}
    return {name: value.numpy() for name, value in drawn.items()}


def reference(tapped=(0, 2), visual_prompts=(0, 2), text_prompts=(1, 3)):
    """A file with numbers of our own: shows that the tool rebuilds such a model, not that the model is right."""
    tokens = tokens_of([3, 5, 4, 70, 2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        file = Reference({f"clip/{name}": value for name, value in frozen(tokens).items()})
        file |= {f"param/{name}": value for name, value in trained(tapped, visual_prompts, text_prompts).items()}
        file["image"] = torch.randn(2, 3, 24, 16).numpy()
    file |= {
        "target": np.array([[1, 0, 1], [0, 1, 0]], dtype=np.int8), "text_tokens": tokens, "template": np.array("a {}"),
        "classes.seen": np.array(["dog", "red car", "person"]), "classes.unseen": np.array(["kite", "cat"]),
        "eval/gzsl.reg": np.array(0.2, dtype=np.float32), "train/reg": np.array(0.23, dtype=np.float32),
        "trajectory/lr": np.array([5e-4, 5e-3, 1e-2]), "trajectory/weight_decay": np.array(0.1),
        "trajectory/momentum": np.array(0.9), "trajectory/loss": np.zeros(2),
    }  # fmt: skip
    file |= {key: value.detach().clone().numpy() for _, key, value in Recomputed(file)}
    return file


@pytest.fixture(scope="module")
def own():
    return reference()


def save(path, file):
    np.savez(path, **file)
    return str(path)


def test_numbers_of_the_release_are_reproduced_in_every_group(capsys):
    assert main([str(RELEASE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(LIMITS)
    assert all(float(line.split()[1]) <= LIMITS[line.split()[0]] for line in lines)


@pytest.mark.parametrize(
    "blocks",
    [
        {},
        {"tapped": (1,), "visual_prompts": (1,), "text_prompts": (0, 1, 2, 3)},
        {"visual_prompts": (0, 1)},
        {"visual_prompts": ()},
        {"text_prompts": ()},
    ],
)
def test_models_of_other_shapes_are_rebuilt(tmp_path, capsys, own, blocks):
    file = reference(**blocks) if blocks else own
    assert main([save(tmp_path / "own.npz", file)]) == 0
    assert all(float(line.split()[1]) < 1e-6 for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("group", "key"),
    [
        ("text", "text_features"),
        ("text", "text_features.teacher"),
        ("image", "eval/local_features"),
        ("teacher", "teacher/local_features"),
        ("eval", "eval/zsl.plan"),
        ("train", "train/cost"),
        ("grad", "grad/text.1.prompts"),
        ("trajectory", "trajectory/loss"),
    ],
)
def test_one_number_off_by_one_percent_fails_its_group_alone(tmp_path, capsys, own, group, key):
    altered = own[key].copy()
    altered.flat[np.abs(altered).argmax()] *= 1.01
    assert main([save(tmp_path / "altered.npz", {**own, key: altered})]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "FAIL" in line] == [group]
    assert any(line.endswith(f"worst: {key})") for line in lines)


def test_nan_fails(tmp_path, own):
    altered = np.full_like(own["eval/gzsl.score"], np.nan)
    assert main([save(tmp_path / "nan.npz", {**own, "eval/gzsl.score": altered})]) == 1


def test_keys_that_are_not_looked_at_are_named(tmp_path, capsys, own):
    assert main([save(tmp_path / "more.npz", {**own, "eval/extra": np.zeros(1)})]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "not looked at: eval/extra"


def one_error_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "key",
    ["image", "target", "template", "text_tokens", "classes.unseen", "clip/visual.proj", "clip/token_embedding.ids",
     "clip/visual.conv1.weight", "clip/positional_embedding", "clip/ln_final.bias", "param/temperature.local",
     "param/visual.2.tss.bn1x1.bias", "eval/gzsl.reg", "eval/zsl.plan", "train/reg", "grad/visual.0.prompts",
     "trajectory/lr", "trajectory/gzsl.score"],
)  # fmt: skip
def test_missing_key_is_named_in_one_line(tmp_path, capsys, own, key):
    file = {name: value for name, value in own.items() if name != key}
    assert main([save(tmp_path / "less.npz", file)]) == 2
    assert key.removeprefix("clip/") in one_error_line(capsys)


def test_model_without_adapted_blocks_is_refused(tmp_path, capsys, own):
    file = {name: value for name, value in own.items() if ".tss." not in name}
    assert main([save(tmp_path / "less.npz", file)]) == 2
    assert "param/visual.BLOCK.tss" in one_error_line(capsys)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("param/visual.2.prompts", np.zeros((4, 128)), "param/visual.2.prompts is (4, 128), but (3, 128) fits"),
        ("text_tokens", tokens_of([1, 2]), "5 labels, but text_tokens of 2"),
        ("text_features", np.zeros((5, 23)), "text_features is (5, 24) here and (5, 23) in the file"),
        ("clip/visual.class_embedding", np.zeros(64), "size mismatch for visual.class_embedding"),
    ],
)
def test_wrong_shape_is_named_in_one_line(tmp_path, capsys, own, key, value, complaint):
    assert main([save(tmp_path / "shape.npz", {**own, key: value})]) == 2
    assert complaint in one_error_line(capsys)


def write_broken(kind, path, own):
    if kind == "text":
        path.write_text("no numbers\n")
    elif kind == "truncated":
        save(path, own)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "damaged":
        np.savez_compressed(path, image=np.arange(10_000))
        content = bytearray(path.read_bytes())
        content[200:1200] = bytes(1000)
        path.write_bytes(content)
    elif kind == "objects":
        np.savez(path, image=np.array([{}], dtype=object))
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))


@pytest.mark.parametrize("kind", ["text", "truncated", "damaged", "objects", "array", "absent"])
def test_broken_file_is_one_line(tmp_path, capsys, own, kind):
    path = tmp_path / "broken.npz"
    write_broken(kind, path, own)
    assert main([str(path)]) == 2
    assert f"cannot read {path}" in one_error_line(capsys)


def test_script_runs_from_any_folder_and_ends_with_its_code(tmp_path, forked):
    done = forked(ROOT / "tools" / "check_parity.py", "absent.npz", cwd=tmp_path)
    assert done.wait() == 2
    assert done.stderr.startswith("error: cannot read absent.npz")
