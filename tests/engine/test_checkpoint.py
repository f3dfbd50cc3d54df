import pickle
import random
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import CheckpointError, load_checkpoint, random_state, save_checkpoint, set_random_state

CONTENT = {
    "model": OrderedDict(weight=torch.randn(50, 50, generator=torch.Generator().manual_seed(0)), empty=torch.zeros(0)),
    "half": torch.tensor([1.0, float("nan"), -0.0], dtype=torch.float16),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "step": 3,
    "rates": [1e-3, (2, None)],
    "names": {0: "Zuckerhut ü", 1: "b\nc"},
    "amp": True,
}


def draws():
    legacy = np.random.rand(3).tolist() + [np.random.randn()]  # noqa: NPY002
    return torch.rand(3).tolist(), legacy, random.random(), random.gauss(0, 1)


def one_line(caught):
    return "\n" not in str(caught.value)


def same(left, right):
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and as_bytes(left) == as_bytes(right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


def as_bytes(tensor):
    return tensor.detach().numpy().tobytes()


def test_what_was_saved_comes_back_to_the_bit(tmp_path):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    assert same(load_checkpoint(tmp_path / "a.pth"), CONTENT)


def test_a_checkpoint_leaves_nothing_beside_it(tmp_path):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_newer_checkpoint_takes_the_place_of_the_older(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"step": 1})
    save_checkpoint(tmp_path / "a.pth", {"step": 2})
    assert load_checkpoint(tmp_path / "a.pth") == {"step": 2}


def test_when_there_is_no_space_the_older_checkpoint_stays(tmp_path):
    save_checkpoint(tmp_path / "a.pth", {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"a\.pth: cannot write, File too large") as caught:
            save_checkpoint(tmp_path / "a.pth", {"weight": torch.zeros(500, 500)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one_line(caught)
    assert load_checkpoint(tmp_path / "a.pth") == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_a_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="none/a.pth: cannot write, No such file"):
        save_checkpoint(tmp_path / "none" / "a.pth", CONTENT)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [np.float32(1)]}, r"content\['a'\]\[0\] is a float32"),
        ({"config": Path("x")}, r"content\['config'\] is a \w*Path"),
        ({"labels": {"red": {1}}}, r"content\['labels'\]\['red'\] is a set"),
        ({b"a": 1}, r"the key b'a' of content is a bytes"),
    ],
)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, value, where):
    with pytest.raises(CheckpointError, match=where):
        save_checkpoint(tmp_path / "a.pth", value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*a\.pth: train first"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_a_truncated_file_is_an_error(tmp_path, keep):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert one_line(caught)


def test_one_wrong_bit_is_an_error(tmp_path):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    content = bytearray((tmp_path / "a.pth").read_bytes())
    weight = CONTENT["model"]["weight"].numpy().tobytes()
    content[content.index(weight) + 5000] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum of .* is wrong"):
        load_checkpoint(tmp_path / "a.pth")


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_that_wants_to_execute_code_is_not_loaded(tmp_path):
    victim = tmp_path / "executed"
    content = {"format": "RAM checkpoint", "version": 1, "content": Malicious(victim)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        load_checkpoint(tmp_path / "a.pth")
    assert one_line(caught)
    assert not victim.exists()


def test_a_plain_pickle_is_not_loaded(tmp_path):
    victim = tmp_path / "executed"
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Malicious(victim)))
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")
    assert not victim.exists()


def test_another_zip_archive_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match="is a zip archive, but not a checkpoint"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("payload", [{"weight": torch.zeros(2)}, torch.zeros(2), {"format": "other", "version": 1}])
def test_weights_without_the_format_marker_are_an_error(tmp_path, payload):
    torch.save(payload, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="is not a checkpoint of this project's training"):
        load_checkpoint(tmp_path / "a.pth")


def test_another_format_version_is_an_error(tmp_path):
    torch.save({"format": "RAM checkpoint", "version": 1, "content": {}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="format version 1, this code reads version 2"):
        load_checkpoint(tmp_path / "a.pth")


@pytest.fixture
def own_random_state():
    state = random_state()
    yield
    set_random_state(state)


@pytest.mark.usefixtures("own_random_state")
def test_generators_go_on_to_the_bit_from_a_saved_state(tmp_path):
    draws()  # leaves a spare Gaussian in numpy's and in python's generator
    save_checkpoint(tmp_path / "a.pth", random_state())
    expected = draws()
    assert draws() != expected
    set_random_state(load_checkpoint(tmp_path / "a.pth"))
    assert draws() == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("own_random_state")
def test_gpu_generators_go_on_to_the_bit_from_a_saved_state(tmp_path):
    save_checkpoint(tmp_path / "a.pth", random_state())
    expected = torch.rand(5, device="cuda")
    set_random_state(load_checkpoint(tmp_path / "a.pth"))
    assert torch.equal(torch.rand(5, device="cuda"), expected)


@pytest.mark.usefixtures("own_random_state")
def test_states_of_gpus_that_are_not_here_are_left_out():
    state = random_state()
    missing = [torch.zeros(16, dtype=torch.uint8)] * 2
    expected = draws()
    set_random_state({**state, "cuda": [*state["cuda"], *missing]})
    assert draws() == expected
